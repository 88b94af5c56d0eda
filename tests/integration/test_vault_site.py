"""A whole site beside a Vault: keys go there with their volumes, whatever is killed or sealed meanwhile."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import shell
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
GIB = 1 << 30


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
                site.api.encrypted_type()
                yield site, server
        finally:
            secret.unlink()


def until(check: Callable[[], Any], seconds: float = 300) -> None:
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
    volume = made(site, "one")
    key = f"volumes/{volume['encryption_key_id']}"
    until(lambda: server.value(key))
    assert opens(file_of(site, volume), str(server.value(key)["value"]).encode())  # type: ignore[index]
    # Another key: it is there before long, and the old one is not.
    site.api.post(f"/brickyard/v1/volumes/{volume['id']}/rekey", {})
    site.api.settle(300)
    other = f"volumes/{site.api.volume(volume['id'])['encryption_key_id']}"
    until(lambda: server.value(other) and key not in server.entries)
    assert opens(file_of(site, volume), str(server.value(other)["value"]).encode())  # type: ignore[index]
    site.api.delete(f"/v3/volumes/{volume['id']}")
    site.api.settle(300)
    until(lambda: not server.entries)


def test_keys_go_home_and_back_by_a_command_whatever_is_killed(place: tuple[Site, Server]) -> None:
    site, server = place
    made_here = [made(site, name)["id"] for name in ("m1", "m2")]

    def keys() -> set[str]:
        return {f"volumes/{site.api.volume(one)['encryption_key_id']}" for one in made_here}

    def moved(place: str, *more: str) -> dict[str, Any]:
        given = (*site.coordinator.sets, f"keys.manager={place}")
        words = [Path(sys.executable).parent / "brickyard-coordinator", "key", "move", "--json", *more,
                 "--config", site.coordinator.config, *(f"--set={one}" for one in given)]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, (done.stderr, server.calls[-8:], site.coordinator.log.read_text()[-3000:])
        return dict(json.loads(done.stdout))

    def dies_at(number: int) -> None:
        """The coordinator is killed at that call of the Vault from now on, before it takes effect."""
        left = [number]

        def before(call: str) -> None:
            if "auth/" in call:
                return
            left[0] -= 1
            if left[0] == 0:
                os.kill(site.coordinator.pid, signal.SIGKILL)

        server.before = before

    until(lambda: set(server.entries) == keys())
    # Home: two removals. There again: looked for, looked for, put, read, noted.
    for target, deaths in (("local", (1, 2)), ("vault", (1, 3, 4, 5))):
        site.coordinator.kill()
        dies_at(deaths[0])
        site.restart("coordinator", f"keys.manager={target}")
        moved(target, "--no-wait")
        for number in (*deaths[1:], 0):
            site.coordinator.died(120)
            dies_at(number)
            site.restart("coordinator", f"keys.manager={target}")
        told = moved(target, "--timeout", "200")
        assert (told["target"], told[f"at_{target}"], told["to_move"], told["to_remove"]) == (target, 2, 0, 0)
        assert set(server.entries) == (keys() if target == "vault" else set())
    assert moved("vault", "--dry-run")["at_vault"] == 2
    for one in made_here:
        volume = site.api.volume(one)
        value = server.value(f"volumes/{volume['encryption_key_id']}")
        assert opens(file_of(site, volume), str(value["value"]).encode())  # type: ignore[index]
        site.api.delete(f"/v3/volumes/{one}")
    site.api.settle(300)
    until(lambda: not server.entries)


def adopted(site: Site, name: str, value: bytes, key_id: str) -> str:
    """A volume whose file was another's, sealed with that key."""
    folder = site.layout.volumes(site.volume_host) / "unmanaged"
    path = folder / name
    with path.open("wb") as file:
        file.truncate(GIB)
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", "luks1", "--key-file", "-"]
    given = [*argv, "--pbkdf-force-iterations", "1000", path]
    subprocess.run(given, input=value.hex().encode(), check=True, timeout=600)
    os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
    pools = site.api.get("/v3/scheduler-stats/get_pools")["pools"]
    ref = {"source-name": name, "encryption-key-id": key_id}
    body = {"host": pools[0]["name"], "ref": ref, "name": name, "volume_type": "secret"}
    volume = site.api.post("/v3/manageable_volumes", {"volume": body})["volume"]
    site.api.settle(300)
    assert site.api.volume(volume["id"])["status"] == "available"
    return str(volume["id"])


def test_what_one_key_opened_has_keys_of_its_own_at_the_vault(place: tuple[Site, Server]) -> None:
    site, server = place
    value = os.urandom(32)
    key = {"type": "symmetric", "payload_b64": base64.b64encode(value).decode(), "name": "registered"}
    fixed = site.api.post("/brickyard/v1/keys", {"key": key})["key"]["id"]
    volumes = [adopted(site, name, value, fixed) for name in ("f1", "f2")]

    def at_the_vault() -> set[str]:
        return {f"volumes/{site.api.volume(one)['encryption_key_id']}" for one in volumes}

    until(lambda: set(server.entries) == at_the_vault())
    before = at_the_vault()
    given = {"OS_AUTH_URL": f"http://127.0.0.1:{site.layout.port}/identity", "OS_USERNAME": "admin",
             "OS_PASSWORD": site.api.password(), "OS_PROJECT_NAME": "admin"}  # fmt: skip
    clean = {name: text for name, text in os.environ.items() if not name.startswith("OS_")}
    typed = ("brickyard", "key", "replace", "--yes", "--json", fixed)
    done = shell.run(site.folder, {**clean, **given}, *typed)
    assert (done.code, done.json()["replaced"], done.json()["left"]) == (0, 2, 0), done
    until(lambda: set(server.entries) == at_the_vault() and not before & at_the_vault())
    for one in volumes:
        told = server.value(f"volumes/{site.api.volume(one)['encryption_key_id']}")
        assert opens(file_of(site, {"id": one}), str(told["value"]).encode())  # type: ignore[index]
        assert not opens(file_of(site, {"id": one}), value.hex().encode())
        site.api.delete(f"/v3/volumes/{one}")
    site.api.delete(f"/brickyard/v1/keys/{fixed}")
    site.api.settle(300)
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
    site.api.settle(300)
    until(lambda: not server.entries)
    log = site.coordinator.log.read_text()
    assert SECRET not in log
    assert not any(token in log for token in server.tokens)
    site.clean()
