"""An operator's file of rules, asked over HTTP: each of Cinder's names rules its own call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.identity.policy import Policy
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.volumesite import volume_api

FLAG = "os-volume-type-access:is_public"


def ruled(tmp_path: Path, **rules: str) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text("".join(f'"{name.replace("__", ":")}": "{rule}"\n' for name, rule in rules.items()))
    return Policy.from_file(path)


@pytest.mark.parametrize(
    ("rule", "action", "body", "refused"),
    [
        ("volume:update_readonly_flag", "os-update_readonly_flag", {"readonly": True}, 403),
        ("volume:update", "os-update_readonly_flag", {"readonly": True}, 202),
        ("volume:update", "os-set_bootable", {"bootable": True}, 403),
        ("volume_extension:volume_image_metadata", "os-set_image_metadata", {"metadata": {"a": "b"}}, 403),
    ],
)
async def test_a_rule_rules_its_own_action(
    tmp_path: Path, rule: str, action: str, body: dict[str, Any], refused: int
) -> None:
    policy = ruled(tmp_path, **{rule.replace(":", "__"): "role:nobody"})
    async with volume_api(tmp_path, policy=policy) as api:
        volume = (await api.volume())["id"]
        assert (await api.act(volume, action, body)).status == refused


async def test_who_may_open_types_to_projects(tmp_path: Path) -> None:
    rules = {f"volume_extension__volume_type_access__{name}": "role:reader" for name in ("addProjectAccess",)}
    async with volume_api(tmp_path, policy=ruled(tmp_path, **rules)) as api:
        made = await api("POST", "/types", who="root", json={"volume_type": {"name": "closed", FLAG: False}})
        path = f"/types/{made.body['volume_type']['id']}/action"
        for who, action, status in (
            ("looker", "removeProjectAccess", 403), ("looker", "addProjectAccess", 202),
            ("worker", "removeProjectAccess", 403), ("root", "removeProjectAccess", 202),
        ):  # fmt: skip
            assert (await api("POST", path, who=who, json={action: {"project": P1}})).status == status, (who, action)


@pytest.mark.parametrize(
    ("rule", "seen"), [("", {"root", "worker"}), ("role:reader", {"root", "worker", "looker"}), ("!", set())]
)
async def test_whom_types_tell_that_they_are_open(tmp_path: Path, rule: str, seen: set[str]) -> None:
    rules = {"volume_extension__volume_type_access": rule} if rule else {}
    async with volume_api(tmp_path, policy=ruled(tmp_path, **rules)) as api:
        for who in ("root", "worker", "looker"):
            default = (await api("GET", "/types/default", who=who)).body["volume_type"]
            (listed,) = (await api("GET", "/types", who=who)).body["volume_types"]
            assert (FLAG in default, FLAG in listed) == (who in seen, who in seen), who
            assert default["is_public"] is True


async def test_extra_specs_of_types_are_for_whom_the_file_says(tmp_path: Path) -> None:
    rules = {"volume_extension__types_extra_specs__index": "role:admin"}
    async with volume_api(tmp_path, policy=ruled(tmp_path, **rules)) as api:
        made = {"name": "open", "extra_specs": {"multiattach": "<is> True"}}
        answer = await api("POST", "/types", who="root", json={"volume_type": made})
        one = f"/types/{answer.body['volume_type']['id']}/extra_specs"
        for who, listed, shown in (("root", 200, 200), ("worker", 403, 200)):
            assert (await api("GET", one, who=who)).status == listed
            assert (await api("GET", f"{one}/multiattach", who=who)).status == shown
