"""What a volume remembers of its image: changed by its owner, but for what is protected or the site's own word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.images import info
from coordinator.images.protections import Protections
from tests.unit.coordinator.api.volumesite import Api, volume_api

RULES = "[^x_billing_.*]\ncreate = admin\nupdate = admin\ndelete = admin\n[.*]\ncreate = @\nupdate = @\ndelete = @\n"


async def change(api: Api, volume_id: str, who: str = "worker", **values: Any) -> tuple[int, Any]:
    answer = await api.act(volume_id, "os-set_image_metadata", {"metadata": values}, who=who)
    return answer.status, answer.body


async def remembered(api: Api, volume_id: str) -> dict[str, str]:
    answer = await api.act(volume_id, "os-show_image_metadata")
    assert answer.status == 200
    return dict(answer.body["metadata"])


async def test_without_protections_it_is_the_owners(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume_id = (await api.volume())["id"]
        assert (await change(api, volume_id, hw_disk_bus="scsi", x_billing_code_1="a"))[0] == 200
        shown = (await api("GET", f"/volumes/{volume_id}")).body["volume"]
        assert shown["volume_image_metadata"] == {"hw_disk_bus": "scsi", "x_billing_code_1": "a"}
        assert shown["bootable"] == "false"
        assert (await change(api, volume_id, **{"": "a"}))[0] == 400
        assert (await change(api, volume_id, **{"k" * 256: "a"}))[0] == 400
        assert (await change(api, volume_id, k="a" * 256))[0] == 400
        assert (await change(api, volume_id, who="other", k="a"))[0] == 404
        for wrong in ({"metadata": "a"}, {"metadata": {"k": 1}}, {"metadata": {"k": None}}, {"a": "b"}, None, []):
            answer = await api.act(volume_id, "os-set_image_metadata", wrong)
            assert answer.status == 400, (wrong, answer.body)
        for kept in (*info.ENCRYPTION, *info.PROVEN, "os_glance_import_task", "os_glance_importing_to_stores"):
            status, said = await change(api, volume_id, **{kept: "True", "beside": "it"})
            assert (status, kept in str(said)) == (400, True)
            assert (await api.act(volume_id, "os-unset_image_metadata", {"key": kept})).status == 400
        for key, status in (("hw_disk_bus", 200), ("hw_disk_bus", 404)):
            assert (await api.act(volume_id, "os-unset_image_metadata", {"key": key})).status == status
        assert await remembered(api, volume_id) == {"x_billing_code_1": "a"}


async def test_clones_and_snapshots_have_their_own(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        volume_id = (await api.volume())["id"]
        await change(api, volume_id, colour="red")
        clone = (await api.volume(source_volid=volume_id))["id"]
        await change(api, clone, colour="blue")
        assert (await remembered(api, volume_id), await remembered(api, clone)) == (
            {"colour": "red"},
            {"colour": "blue"},
        )


async def test_what_is_protected_only_its_roles_change(tmp_path: Path) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(RULES)
    rules = Protections.from_file(file, by_policy=False, known=lambda rule: True)
    (tmp_path / "site").mkdir()
    async with volume_api(tmp_path / "site", others={Protections: rules}) as api:
        volume_id = (await api.volume())["id"]
        assert (await change(api, volume_id, "root", x_billing_code_1="a"))[0] == 200
        status, body = await change(api, volume_id, x_billing_code_1="b", colour="red")
        assert (status, list(body)) == (403, ["forbidden"])
        assert await remembered(api, volume_id) == {"x_billing_code_1": "a"}, "nothing of it is done"
        assert (await change(api, volume_id, x_billing_code_1="a", colour="red"))[0] == 200, "it is not changed"
        assert (await change(api, volume_id, x_billing_code_2="a"))[0] == 403
        gone = await api.act(volume_id, "os-unset_image_metadata", {"key": "x_billing_code_1"})
        assert gone.status == 403
        assert (await api.act(volume_id, "os-unset_image_metadata", {"key": "colour"})).status == 200
        gone = await api.act(volume_id, "os-unset_image_metadata", {"key": "x_billing_code_1"}, who="root")
        assert (gone.status, await remembered(api, volume_id)) == (200, {})
