"""A whole site beside a Vault: keys go there with their volumes, whatever is killed or sealed meanwhile."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.luks import opens
from tests.support.site import Site, started
from tests.support.vault import ROLE, SECRET, vault
from tests.support.vault import Vault as Server

pytestmark = [
    pytest.mark.root,
    pytest.mark.kill,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Site, Server]]:
    with vault() as server:
        secret = Path("/var/tmp") / f"brickyard-secret-id-{os.getpid()}"
        given = {"address": server.url, "role_id": ROLE, "interval_s": 0.2, "path": "volumes", "secret_id_file": secret}
        site = Site(1, tuple(f"keys.vault.{key}={value}" for key, value in given.items()))
        try:
            secret.write_text(SECRET)
            secret.chmod(0o400)
            with started(site):
                owner = site.layout.coordinator_state.stat()
                os.chown(secret, owner.st_uid, owner.st_gid)
                yield site, server
        finally:
            secret.unlink()


def until(check: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def made(site: Site, name: str) -> dict[str, Any]:
    return site.api.volume(site.api.made(name, volume_type="secret"))


def file_of(site: Site, volume: dict[str, Any]) -> Path:
    return site.layout.volumes(site.volume_host) / "volumes" / str(volume["id"])


def issues(site: Site) -> list[str]:
    return [one["code"] for one in site.api.get("/brickyard/v1/issues")["issues"]]


def test_a_key_comes_and_goes_with_its_volume(place: tuple[Site, Server]) -> None:
    site, server = place
    site.api.encrypted_type()
    volume = made(site, "one")
    key = f"volumes/{volume['encryption_key_id']}"
    until(lambda: server.value(key))
    assert opens(file_of(site, volume), str(server.value(key)["value"]).encode())  # type: ignore[index]
    # Another key: it is there before long, and the old one is not.
    site.api.post(f"/brickyard/v1/volumes/{volume['id']}/rekey", {})
    site.api.settle()
    other = f"volumes/{site.api.volume(volume['id'])['encryption_key_id']}"
    until(lambda: server.value(other) and key not in server.entries)
    assert opens(file_of(site, volume), str(server.value(other)["value"]).encode())  # type: ignore[index]
    site.api.delete(f"/v3/volumes/{volume['id']}")
    site.api.settle()
    until(lambda: not server.entries)


def test_a_sealed_vault_holds_up_nobody_and_is_an_issue(place: tuple[Site, Server]) -> None:
    site, server = place
    server.sealed = True
    volume = made(site, "two")
    assert (volume["status"], volume["encrypted"]) == ("available", True)
    assert file_of(site, volume).read_bytes()[:4] == b"LUKS"
    until(lambda: "keys.manager-away" in issues(site))
    site.coordinator.kill()
    site.restart("coordinator")
    server.sealed = False
    key = f"volumes/{volume['encryption_key_id']}"
    until(lambda: server.value(key))
    until(lambda: "keys.manager-away" not in issues(site))
    site.api.delete(f"/v3/volumes/{volume['id']}")
    site.api.settle()
    until(lambda: not server.entries)
    log = site.coordinator.log.read_text()
    assert SECRET not in log
    assert not any(token in log for token in server.tokens)
    site.clean()
