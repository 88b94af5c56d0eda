"""Another content for a volume that servers wait for: of one server alone, and of none that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import update

from coordinator.state.tables.volumes import volumes
from tests.unit.coordinator.api.test_volume_conflicts import IMAGE, an_image, server
from tests.unit.coordinator.api.volumesite import volume_api


async def test_a_volume_that_is_kept_for_two_servers_keeps_its_content(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await api.here.db.write(an_image)
        volume = (await api.volume())["id"]

        def several(conn: Any) -> None:
            conn.execute(update(volumes).where(volumes.c.id == volume).values(multiattach=True))

        await api.here.db.write(several)
        kept = []
        for _ in range(2):
            wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": server()}}
            made = await api("POST", "/attachments", who="root", json=wanted)
            assert made.status == 200, made.body
            kept.append(made.body["attachment"]["id"])
        rebuilt = {"image_id": IMAGE, "reimage_reserved": True}
        refused = await api.act(volume, "os-reimage", rebuilt, who="root")
        assert (refused.status, "more than one server" in str(refused.body)) == (409, True)
        shown = await api("GET", f"/volumes/{volume}", who="root")
        assert shown.body["volume"]["status"] == "reserved"
        assert (await api("DELETE", f"/attachments/{kept[0]}", who="root")).status == 200
        assert (await api.act(volume, "os-reimage", rebuilt, who="root")).status == 202
        await api.settled()


async def test_a_volume_in_use_keeps_its_content_for_whoever_asks(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        await api.here.db.write(an_image)
        volume = (await api.volume())["id"]
        assert (await api.act(volume, "os-attach", {"instance_uuid": server(), "mountpoint": "/dev/vdb"})).status == 202
        for more in ({}, {"reimage_reserved": True}):
            refused = await api.act(volume, "os-reimage", {"image_id": IMAGE, **more}, who="root")
            assert (refused.status, "in-use" in str(refused.body)) == (400, True), refused.body
        shown = (await api("GET", f"/volumes/{volume}", who="root")).body["volume"]
        assert (shown["status"], "volume_image_metadata" in shown) == ("in-use", False)
