"""What the caller can do: it follows the hosts that answer, his rights, and the types that he sees."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, select, update

from coordinator.state.tables.fleet import hosts, pools
from tests.unit.coordinator.api.volumesite import Api, volume_api

SITE = "/brickyard/v1/capabilities"


async def names(api: Api, path: str = SITE, who: str = "worker") -> set[str]:
    answer = await api("GET", path, who=who)
    assert answer.status == 200, answer.body
    assert all(set(one) == {"name", "description"} for one in answer.body["capabilities"])
    return {one["name"] for one in answer.body["capabilities"]}


async def a_type(api: Api, name: str, **more: object) -> str:
    answer = await api("POST", "/types", who="root", json={"volume_type": {"name": name, **more}})
    return str(answer.body["volume_type"]["id"])


async def test_hosts_that_answer_decide(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        assert {"volume-snapshot", "volume-revert", "volume-transfer"} <= await names(api)
        assert "volume-backup" not in await names(api)
        await api.here.db.write(lambda conn: conn.execute(update(hosts).values(reachable=False)).rowcount)
        assert await names(api) == {"volume-transfer"}


async def test_several_attachments_and_images_need_a_host_for_them(tmp_path: Path) -> None:
    def able(conn: Connection) -> None:
        for row in conn.execute(select(pools.c.id, pools.c.reported)).all():
            told = {**(row.reported or {}), "multiattach": True}
            conn.execute(update(pools).where(pools.c.id == row.id).values(reported=told))
        conn.execute(update(hosts).values(keeps_images=True))

    def unable(conn: Connection) -> None:
        for row in conn.execute(select(pools.c.id, pools.c.reported)).all():
            told = {**(row.reported or {}), "multiattach": False}
            conn.execute(update(pools).where(pools.c.id == row.id).values(reported=told))
        conn.execute(update(hosts).values(keeps_images=False))

    async with volume_api(tmp_path) as api:
        await api.here.db.write(unable)
        assert not {"volume-multiattach", "volume-image-upload"} & await names(api)
        await api.here.db.write(able)
        assert {"volume-multiattach", "volume-image-upload"} <= await names(api)
        plain, several = (
            await a_type(api, "plain"),
            await a_type(api, "several", extra_specs={"multiattach": "<is> True"}),
        )
        assert "volume-multiattach" not in await names(api, f"/brickyard/v1/types/{plain}/capabilities")
        assert "volume-multiattach" in await names(api, f"/brickyard/v1/types/{several}/capabilities")


async def test_only_types_that_the_caller_sees_count(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        hidden = await a_type(api, "hidden", **{"os-volume-type-access:is_public": False})
        made = {"encryption": {"provider": "luks", "control_location": "front-end", "cipher": "aes-xts-plain64",
                               "key_size": 256}}  # fmt: skip
        assert (await api("POST", f"/types/{hidden}/encryption", who="root", json=made)).status == 200
        assert "volume-encryption" not in await names(api)
        assert "volume-encryption" in await names(api, who="root")
        path = f"/brickyard/v1/types/{hidden}/capabilities"
        assert (await api("GET", path, who="worker")).status == 404
        assert "volume-encryption" in await names(api, path, who="root")


async def test_what_policy_forbids_is_not_named(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        assert "volume-revert" not in await names(api, who="looker")
