"""Tables of RBD back ends: names that Ceph can use, a keyring that is safe, never two on one pool."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.backends.config import RbdBackendConfig
from agent.backends.opening import opened
from agent.backends.rbd_errors import KeyringUnsafe
from agent.server.settings import AgentSettings


def settings(**backends: dict[str, object]) -> AgentSettings:
    return AgentSettings.model_validate({"backends": backends})


def test_the_keyring_is_by_default_where_ceph_has_it() -> None:
    read = settings(one={"driver": "rbd", "pool": "volumes", "user": "site"}).backends["one"]
    assert isinstance(read, RbdBackendConfig)
    assert read.keyring_file == Path("/etc/ceph/ceph.client.site.keyring")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"pool": "-v"},
        {"pool": "a/b"},
        {"pool": "a@b"},
        {"pool": "v", "user": "client admin"},
        {"pool": "v", "secret_uuid": "x"},
        {"pool": "v", "clone_depth": 0},
        {"pool": "v", "deadline_s": 1},
        {"pool": "v", "path": "/x"},
    ],
)
def test_what_can_not_be_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(one={"driver": "rbd", **table})


def test_two_back_ends_never_share_a_pool() -> None:
    table: dict[str, object] = {"driver": "rbd", "pool": "volumes"}
    with pytest.raises(ValidationError, match="share the Ceph pool volumes"):
        settings(one=table, two=table)
    settings(one=table, two=table | {"conf": "/etc/ceph/other.conf"})


def place(root: Path, mode: int) -> RbdBackendConfig:
    (root / "ceph.conf").write_text("[global]\nmon host = 127.0.0.1\n")
    (root / "keyring").write_text("[client.brickyard]\nkey = AQ==\n")
    (root / "keyring").chmod(mode)
    return RbdBackendConfig.model_validate(
        {
            "driver": "rbd", "pool": "volumes", "conf": root / "ceph.conf", "keyring": root / "keyring",
            "work_dir": root / "work",
        }
    )  # fmt: skip


def test_a_keyring_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyringUnsafe) as caught:
        opened("ceph", place(tmp_path, 0o644))
    assert "chmod 0600" in caught.value.remedy


async def test_the_tools_are_told_when_to_give_up_and_never_the_key(tmp_path: Path) -> None:
    opened("ceph#fast", place(tmp_path, 0o600)).close()
    written = tmp_path / "work" / "ceph.fast" / "ceph.conf"
    text = written.read_text()
    assert text.startswith("[global]\nmon host = 127.0.0.1\n")
    assert "rados osd op timeout = 30\n" in text
    assert f"keyring = {tmp_path}/keyring\n" in text
    assert "AQ==" not in text
    assert written.stat().st_mode & 0o777 == 0o600
