"""Volume types that are bound to availability zones, over HTTP."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, update

from coordinator.state.tables.fleet import hosts
from tests.unit.coordinator.api.volumesite import Api, volume_api


async def _type(api: Api, name: str, zones: str) -> None:
    body = {"volume_type": {"name": name, "extra_specs": {"RESKEY:availability_zones": zones}}}
    made = await api("POST", "/types", who="root", json=body)
    assert made.status == 200, made.body


async def _create(api: Api, **wanted: str) -> tuple[int, str]:
    """Status; where the volume came to lie, or why it was refused."""
    made = await api("POST", "/volumes", json={"volume": {"size": 1, **wanted}})
    if made.status != 202:
        return made.status, str(made.body)
    await api.settled()
    seen = await api("GET", f"/volumes/{made.body['volume']['id']}")
    assert seen.body["volume"]["status"] == "available"
    return made.status, str(seen.body["volume"]["availability_zone"])


async def test_a_type_bound_to_zones(tmp_path: Path) -> None:
    async with volume_api(tmp_path, ("host-a", "host-b", "host-c")) as api:

        def spread(conn: Connection) -> None:
            for host, zone in (("host-a", "az1"), ("host-b", "az2"), ("host-c", "az3")):
                conn.execute(update(hosts).where(hosts.c.id == host).values(availability_zone=zone))

        await api.here.db.write(spread)
        await _type(api, "bound", "az1, az2")
        await _type(api, "nowhere", " , ")
        told = {await _create(api, volume_type="bound") for _ in range(8)}
        assert told <= {(202, "az1"), (202, "az2")}
        assert await _create(api, volume_type="bound", availability_zone="az2") == (202, "az2")
        status, why = await _create(api, volume_type="bound", availability_zone="az3")
        assert status == 400
        assert "only supported in these availability zones: az1, az2" in why
        assert (await _create(api, volume_type="nowhere"))[0] == 400
        assert (await _create(api, availability_zone="az3"))[1] == "az3"
