"""No secret where others can read it: a whole site at log level debug uses marked secrets, and everything is searched.

Searched: arguments and environment of every process all the time, logs, databases with their write-ahead files, answers
of the API, support bundle, all state folders. Each mark is looked for as it is, in hexadecimal and in base64.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.api import Refused
from tests.support.canary import Watcher, everything, marks
from tests.support.images import content_of, decrypted, encrypted_qcow2
from tests.support.site import Site, running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()


def key(type: str, value: bytes) -> dict[str, str]:
    return {"type": type, "payload_b64": base64.b64encode(value).decode()}


def refused(site: Site, path: str, body: object) -> None:
    with pytest.raises(Refused):
        site.api.post(path, body)


def use(site: Site, passphrase: bytes, symmetric: bytes, wrong: bytes) -> None:
    """Both kinds of secrets, a restart that needs the secret again, an attachment, and errors about secrets."""
    api, content = site.api, content_of()
    size = len(content)
    secret_type = api.encrypted_type()
    first, second = (encrypted_qcow2(site.folder, content, value) for value in (passphrase, symmetric.hex().encode()))
    images = [
        api.image("passphrase", "qcow2", first, secret=key("passphrase", passphrase), decrypt_size=size),
        api.image("symmetric", "qcow2", second, secret=key("symmetric", symmetric), decrypt_size=size),
    ]
    kept = site.layout.volumes(site.volume_host) / "volumes"
    for image, opens in zip(images, (passphrase, symmetric.hex().encode()), strict=True):
        volume = api.made(f"of-{image}", volume_type=secret_type, imageRef=image)
        assert decrypted(site.folder, kept / volume, opens, size) == content
    host = site.agents[site.volume_host]
    host.arm("agent.job.started")
    again = api.create_volume("again", volume_type=secret_type, imageRef=images[0])
    assert host.died() == -signal.SIGKILL
    site.restart(host.name)
    api.settle(60)
    assert api.volume(again)["status"] == "available"
    if LOOP:
        body = {"volume_id": again, "host_id": site.volume_host}
        attachment = api.post("/brickyard/v1/attachments", body)["attachment"]["id"]
        api.settle()
        api.post(f"/v3/volumes/{again}/action", {"os-extend": {"new_size": 2}})
        api.settle()
        api.delete(f"/brickyard/v1/attachments/{attachment}")
        api.settle()
    # Where the key of a volume is read to be replaced: for a copy, and for another encryption.
    api.made("copy", volume_type=secret_type, source_volid=volume)
    other_type = api.encrypted_type("secret2", "luks2")
    retype = {"os-retype": {"new_type": other_type, "migration_policy": "on-demand"}}
    api.post(f"/v3/volumes/{volume}/action", retype)
    api.settle(120)
    assert api.volume(volume)["volume_type"] == other_type
    api.post(f"/brickyard/v1/volumes/{again}/rekey", {})
    api.settle()
    assert api.volume(again)["status"] == "available"
    adopt(site, secret_type, symmetric, wrong)
    # What fails: a wrong secret, bodies that are refused, a type without encryption.
    misfit = api.image("wrong", "qcow2", first, secret=key("passphrase", wrong), decrypt_size=size)
    failed = api.create_volume("failed", volume_type=secret_type, imageRef=misfit)
    api.settle()
    assert api.volume(failed)["status"] == "error"
    refused(site, "/v3/volumes", {"volume": {"size": 1, "imageRef": images[0]}})
    encryption = {"secret": key("passphrase", passphrase), "decrypt_size": "many"}
    refused(site, "/brickyard/v1/images", {"image": {"disk_format": "qcow2", "encryption": encryption}})
    refused(site, "/brickyard/v1/keys", {"key": {**key("passphrase", passphrase), "surplus": 1}})
    refused(site, "/brickyard/v1/keys", {"key": {"type": "pass", "payload_b64": passphrase.decode() + "!"}})
    api.get("/v3/messages")
    api.get("/brickyard/v1/operations?all_projects=true")
    api.get("/brickyard/v1/keys")


def adopt(site: Site, secret_type: str, symmetric: bytes, wrong: bytes) -> None:
    """A volume that somebody else encrypted: with a key that does not open it, and with the one that does."""
    api, folder = site.api, site.layout.volumes(site.volume_host) / "unmanaged"
    file = folder / "theirs"
    file.touch()
    os.truncate(file, 8 << 20)
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", "luks1", "--key-file", "-"]
    subprocess.run([*argv, "--pbkdf-force-iterations", "1000", file], input=symmetric.hex().encode(), check=True)
    os.chown(file, folder.stat().st_uid, folder.stat().st_gid)
    pools = [one["name"] for one in api.get("/v3/scheduler-stats/get_pools")["pools"]]
    pool = next(name for name in pools if name.startswith(site.volume_host))
    for value, status in ((wrong, "error_managing"), (symmetric, "available")):
        given = {**key("symmetric", value), "name": "registered"}
        key_id = api.post("/brickyard/v1/keys", {"key": given})["key"]["id"]
        ref = {"source-name": "theirs", "encryption-key-id": key_id}
        body = {"volume": {"host": pool, "ref": ref, "name": status, "volume_type": secret_type}}
        made = api.post("/v3/manageable_volumes", body)["volume"]["id"]
        api.settle()
        assert api.volume(made)["status"] == status
        if status != "available":
            api.delete(f"/v3/volumes/{made}")
            api.settle()


def bundle(site: Site) -> dict[str, bytes]:
    """What the agent's support bundle holds."""
    file = site.folder / "support.tar.gz"
    command = Path(sys.executable).with_name("brickyard-agent")
    config = site.layout.agent_file(site.volume_host)
    subprocess.run([command, "support-bundle", file, "--config", config], check=True, capture_output=True)
    with tarfile.open(file) as archive:
        names = [one.name for one in archive if one.isfile()]
        found = {f"support bundle: {name}": archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    file.unlink()
    return found


def test_no_secret_is_where_others_can_read_it() -> None:
    passphrase = f"Canary-{os.urandom(9).hex()}-passphrase".encode()
    wrong = f"Canary-{os.urandom(9).hex()}-wrong".encode()
    symmetric = os.urandom(32)
    wanted = [mark for secret in (passphrase, wrong, symmetric) for mark in marks(secret)]
    watcher = Watcher(wanted)
    debug = ("log.level=debug",)
    with watcher.watching(), running(sets=debug, agent_sets=debug) as site:
        use(site, passphrase, symmetric, wrong)
        site.clean()
        password = site.layout.coordinator_state / "admin-password"
        places = {**everything(site), **bundle(site), "answers of the API": b"\0".join(site.api.bodies)}
        logs = places["coordinator.log"] + places["host-a.log"] + places["host-b.log"]
        seen = {name for name, data in places.items() for mark in wanted if mark in data}
        password_name = str(password.relative_to(site.folder))
        told = [name for name, data in places.items() if password.read_bytes().strip() in data]
    assert not seen
    assert set(told) <= {password_name, "site/openrc"}
    assert not watcher.found
    # The search itself must have looked at what it is about.
    assert "qemu-img" in watcher.tools
    assert b"debug" in logs
    assert {"site/coordinator/coordinator.db", "site/coordinator/coordinator.db-wal"} <= places.keys()
    assert "site/host-b/state/journal.db" in places
    assert any(name.startswith("support bundle") for name in places)
    assert b"does not open" in places["answers of the API"]
