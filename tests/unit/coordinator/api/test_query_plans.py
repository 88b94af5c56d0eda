"""No call of the API reads a table that grows from end to end: the plan of every query it issues is looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from agent.base.ids import new_id
from coordinator.api.resources import all_resources
from coordinator.api.route import V3, Route
from coordinator.api.v3.attachments import ATTACHMENTS
from coordinator.api.v3.messages import MESSAGES
from coordinator.api.v3.snapshots import SNAPSHOTS
from coordinator.api.v3.transfers import TRANSFERS
from coordinator.api.v3.volume_filters import VOLUMES
from tests.unit.coordinator.api.volumesite import Api, volume_api

GROWING = (
    "volumes", "volume_metadata", "volume_admin_metadata", "volume_image_metadata", "snapshots", "snapshot_metadata",
    "attachments", "generations", "operations", "events", "messages", "issues", "images", "image_properties", "secrets",
    "transfers",
)  # fmt: skip
LISTS = {
    "/volumes": VOLUMES, "/volumes/detail": VOLUMES, "/snapshots": SNAPSHOTS, "/snapshots/detail": SNAPSHOTS,
    "/attachments": ATTACHMENTS, "/volume-transfers/detail": TRANSFERS, "/messages": MESSAGES,
}  # fmt: skip
VALUES = {
    "metadata": '{"a":"b"}', "image_metadata": '{"a":"b"}', "glance_metadata": '{"a":"b"}', "bootable": "true",
    "multiattach": "true", "consumes_quota": "true", "created_at": "gt:2026-01-01T00:00:00",
    "updated_at": "lt:2026-01-01T00:00:00", "size": "1", "volume_size": "1",
}  # fmt: skip
FEW = ("ix_operations_active", "uq_issues_open")
"""Indexes of what is under way: what reads them whole reads few rows."""
_WALK = re.compile(r"SCAN (\w+) USING (?:COVERING )?INDEX (\w+)")


class Plans:
    """Every statement that runs, once, with SQLite's plan for it."""

    def __init__(self, engine: Engine) -> None:
        self.seen: dict[str, list[str]] = {}
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement in self.seen or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters)
        self.seen[statement] = [str(row[3]) for row in cursor.fetchall()]

    def scans(self) -> list[str]:
        """Statements that read a growing table from end to end.

        A page of everybody's rows, which administrators ask for, walks an index of live rows until it is full.
        """
        found = []
        for statement, plan in self.seen.items():
            for step in plan:
                walk = _WALK.match(step)
                if not step.startswith("SCAN ") or step.split()[1] not in GROWING or "WHERE 0 = 1" in statement:
                    continue
                by = walk[2] if walk is not None else ""
                paged = ("_live_" in by or "_autoindex_" in by) and "ORDER BY" in statement and "LIMIT" in statement
                if not paged and by not in FEW:
                    found.append(f"{step}: ...{statement[statement.rindex('FROM') :]}")
        return sorted(set(found))


def plans_of(api: Api) -> Plans:
    if api.here.db.engine.dialect.name != "sqlite":
        pytest.skip("these are the plans of SQLite")
    return Plans(api.here.db.engine)


def paths(route: Route, prefix: str) -> list[str]:
    """The call with ids that are not there, and with each of its parameters alone."""
    path = re.sub(r"\{[a-z_]+\}", lambda _: new_id(), route.path)
    full = path if prefix == V3 else f"{prefix}{path}"
    return [full, *(f"{full}?{name}=x" for name in route.query)]


async def everything_is_read(api: Api) -> None:
    for resource in all_resources():
        if not resource.prefix.startswith((V3, "/brickyard")):
            continue
        for route in resource.routes:
            if route.method == "GET" and not route.streams:
                for who in ("worker", "root"):
                    for path in paths(route, resource.prefix):
                        await api("GET", path, who=who)


async def every_list_is_filtered_and_sorted(api: Api) -> None:
    for path, listing in LISTS.items():
        for who, everybody in (("worker", ""), ("root", ""), ("root", "&all_tenants=1")):
            for name in listing.filters:
                answer = await api("GET", f"{path}?{name}={VALUES.get(name, 'x')}{everybody}&limit=2", who=who)
                assert answer.status in {200, 400}, answer.body
            for name in listing.sort_keys:
                assert (await api("GET", f"{path}?sort={name}{everybody}&limit=2", who=who)).status == 200
            first = await api("GET", f"{path}?limit=1{everybody}", who=who)
            if links := first.body.get(listing.links):
                again = links[0]["href"].partition("/v3")[2]
                assert (await api("GET", again, who=who)).status == 200
        assert (await api("GET", f"{path}?with_count=true" if listing.counted else path)).status == 200


async def a_life(api: Api) -> None:
    """What changes rows, too."""
    made = await api("POST", "/types", who="root", json={"volume_type": {"name": "secret"}})
    type_id = made.body["volume_type"]["id"]
    crypt = f"/types/{type_id}/encryption"
    await api("POST", crypt, who="root", json={"encryption": {"provider": "luks"}})
    volume = await api.volume(metadata={"a": "b"}, volume_type="secret")
    volume_id = volume["id"]
    await api("PUT", f"/volumes/{volume_id}", json={"volume": {"name": "new"}})
    await api("POST", f"/volumes/{volume_id}/metadata", json={"metadata": {"c": "d"}})
    await api("DELETE", f"/volumes/{volume_id}/metadata/c")
    await api.act(volume_id, "os-extend", {"new_size": 2})
    await api.settled()
    await api("POST", "/snapshots", json={"snapshot": {"volume_id": volume_id, "metadata": {"a": "b"}}})
    await api.settled()
    copy = await api.volume(source_volid=volume_id, size=2)
    await api("DELETE", f"/volumes/{copy['id']}")
    body = {"attachment": {"volume_uuid": volume_id, "connector": {"host": "host-a"}}}
    attached = (await api("POST", "/attachments", json=body)).body["attachment"]["id"]
    await api("POST", f"/attachments/{attached}/action", json={"os-complete": None})
    await api("DELETE", f"/attachments/{attached}")
    offer = await api("POST", "/volume-transfers", json={"transfer": {"volume_id": volume_id}})
    transfer = offer.body["transfer"]
    accept = {"accept": {"auth_key": transfer["auth_key"]}}
    await api("POST", f"/volume-transfers/{transfer['id']}/accept", who="other", json=accept)
    for verb in ("os-reset_status", "os-force_delete", "os-reserve", "os-unreserve", "os-retype"):
        await api.act(volume_id, verb, {"status": "available", "new_type": type_id}, who="root")
    await api.settled()
    await api("DELETE", f"/volumes/{volume_id}?cascade=True", who="other")
    await api.settled()
    await api("DELETE", f"/types/{type_id}", who="root")
    await api("GET", "/os-hosts/host-a@files", who="root")


HOT = (
    ("/volumes?name=x", "ix_volumes_live_name"), ("/volumes?host=h", "ix_volumes_live_host"),
    ("/volumes?volume_type_id=x", "ix_volumes_live_type"), ("/snapshots?volume_id=x", "ix_snapshots_live_volume"),
    ("/snapshots?name=x", "ix_snapshots_live_name"), ("/attachments?volume_id=x", "ix_attachments_live_volume"),
    ("/attachments?instance_id=x", "ix_attachments_live_instance"), ("/volumes?status=x", "ix_volumes_live_status"),
    ("/volumes?user_id=x", "ix_volumes_live_user"), ("/volumes?availability_zone=x", "ix_volumes_live_zone"),
    ("/volumes?snapshot_id=x", "ix_volumes_live_snapshot_id"), ("/volumes?group_id=x", "ix_volumes_live_group_id"),
    ("/volumes?source_volid=x", "ix_volumes_live_source_volid"), ("/volumes?bootable=1", "ix_volumes_live_bootable"),
    ("/volumes?multiattach=1", "ix_volumes_live_multiattach"),
    ("/volumes?migration_status=x", "ix_volumes_live_migration_status"),
    ("/snapshots?status=x", "ix_snapshots_live_status"), ("/attachments?status=x", "ix_attachments_live_status"),
    # Of several filters, and of filter and project, the one that finds the fewest rows.
    ("/volumes?status=x&host=h", "ix_volumes_live_host"), ("/volumes?status=x&host=h&name=x", "ix_volumes_live_name"),
    ("/volumes?availability_zone=x&volume_type_id=x&user_id=x&status=x", "ix_volumes_live_user"),
    ("/attachments?status=x&instance_id=x", "ix_attachments_live_instance"),
    ("/snapshots?status=x&volume_id=x", "ix_snapshots_live_volume"),
)  # fmt: skip
IN_A_PROJECT = (
    ("/volumes?name=x", "ix_volumes_live_name"), ("/volumes?status=x", "ix_volumes_live_project_status"),
    ("/volumes?name=x&status=x", "ix_volumes_live_name"), ("/volumes?availability_zone=x", "ix_volumes_live_project"),
    ("/volumes?volume_type_id=x", "ix_volumes_live_project"), ("/snapshots?volume_id=x", "ix_snapshots_live_volume"),
    ("/snapshots?status=x", "ix_snapshots_live_project"), ("/attachments?status=x", "ix_attachments_live_project"),
    ("/attachments?volume_id=x", "ix_attachments_live_volume"),
    ("/volumes?user_id=x&status=x", "ix_volumes_live_user"),
)  # fmt: skip


async def test_what_is_looked_for_most_is_found_by_an_index(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        plans = plans_of(api)
        asked = [(f"{path}&all_tenants=1", index) for path, index in HOT] + [*IN_A_PROJECT]
        for path, index in asked:
            plans.seen.clear()
            assert (await api("GET", path, who="root")).status == 200
            assert any(f"USING INDEX {index} (" in step for plan in plans.seen.values() for step in plan), plans.seen


async def test_no_query_reads_a_growing_table_from_end_to_end(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        plans = plans_of(api)
        for _ in range(2):
            await api.volume(metadata={"a": "b"})
        await a_life(api)
        await everything_is_read(api)
        await every_list_is_filtered_and_sorted(api)
        assert len(plans.seen) > 200
        scans = plans.scans()
        assert scans == [], "\n".join(scans)
