"""Keys, types with encryption, and volumes that an operator already has sealed, by `brickyard`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.site import BIN, Site
from tests.support.luks import opens


def until_available(site: Site, name: str) -> None:
    """The work on it has ended, and well."""
    volume = site.run("volume", "show", name, "--json").json
    (newest,) = json.loads(site.ok("operation", "list", "--resource", volume["id"], "--limit", "1", "--json"))
    site.ok("operation", "watch", newest["id"])
    assert site.run("volume", "show", name, "--json").json["status"] == "available"


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
def test_an_encrypted_volume_is_adopted_and_gets_another_key(site: Site) -> None:
    site.ok("type", "create", "sealed", "--encryption-provider", "luks")
    seed = site.ok("volume", "create", "seed", "--size", "1", "--wait", "-o", "value").strip()
    pool = site.run("volume", "show", seed, "--json").json["os-vol-host-attr:host"]
    site.ok("volume", "delete", "seed", "--yes", "--wait")
    folder, fixed = next(site.folder.glob("**/unmanaged")), bytes(range(32)).hex()
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--disable-locks", "--type", "luks1", "--key-file", "-"]
    for name in ("volume-one", "volume-two"):
        (folder / name).touch()
        os.truncate(folder / name, 32 << 20)
        weak = [*argv, "--pbkdf-force-iterations", "1000", folder / name]
        subprocess.run(weak, input=fixed.encode(), check=True)
        os.chown(folder / name, folder.stat().st_uid, folder.stat().st_gid)
    assert site.run("key", "register", "--type", "symmetric", "--hex", "--file", "-", stdin="xyz").code == 2
    site.ok("key", "register", "--type", "symmetric", "--hex", "--file", "-", "--name", "fixed", stdin=fixed + "\n")
    site.ok("volume", "manage", pool, "volume-one", "--type", "sealed", "--key", "fixed", "--name", "one", "--wait")
    # The same by a client that knows nothing of Brickyard.
    key_id = site.run("key", "show", "fixed", "--json").json["id"]
    remote = ["--remote-source", "source-name=volume-two", "--remote-source", f"encryption-key-id={key_id}"]
    command = [BIN / "openstack", "volume", "create", "--host", pool, "--type", "sealed", *remote, "two"]
    done = subprocess.run(command, env=site.environment, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    until_available(site, "two")
    volume = site.run("volume", "show", "one", "--json").json
    assert (volume["status"], volume["encrypted"], volume["size"]) == ("available", True, 1)
    held = folder.parent / "volumes" / volume["id"]
    assert opens(held, fixed.encode())
    site.ok("snapshot", "create", "two", "kept", "--wait")
    planned = site.run("key", "replace", "fixed", "--dry-run", "--json").json
    assert {one["name"]: one["refused"] is None for one in planned} == {"one": True, "two": False}
    first = site.run("key", "replace", "fixed", "--yes", "--json")
    assert (first.code, first.json["replaced"], first.json["left"]) == (1, 1, 1)
    assert not opens(held, fixed.encode())
    site.ok("snapshot", "delete", "kept", "--yes", "--wait")
    second = site.run("key", "replace", "fixed", "--yes", "--json")
    assert (second.code, second.json["replaced"], [one["name"] for one in second.json["volumes"]]) == (0, 1, ["two"])
    assert site.run("key", "replace", "fixed", "--json").json == {"replaced": 0, "left": 0, "volumes": []}
    site.ok("volume", "delete", "two", "--yes", "--wait")
    site.ok("key", "delete", "fixed", "--yes")
    key_of = site.run("operation", "list", "--json").json
    (row,) = site.run("volume", "rekey", "one", "--master-key", "--dry-run", "--json").json
    assert ("master key" in row["loses"], row["refused"]) == (True, None)
    assert site.run("operation", "list", "--json").json == key_of
    site.ok("volume", "rekey", "one", "--master-key", "--wait")
    assert site.run("volume", "show", "one", "--json").json["status"] == "available"
    site.ok("volume", "delete", "one", "--yes", "--wait")
    assert site.run("key", "list", "--json").json == []
    site.ok("type", "delete", "sealed", "--yes")


def test_types_with_encryption(site: Site) -> None:
    made = json.loads(site.ok("type", "create", "vault", "--encryption-provider", "luks", "--json"))
    assert made["encryption"] == {
        "provider": "luks", "cipher": "aes-xts-plain64", "key_size": 512, "control_location": "front-end",
    }  # fmt: skip
    site.ok("type", "set", "vault", "--description", "closed", "--property", "k=v")
    assert site.run("type", "show", "vault", "--json").json["extra_specs"] == {"k": "v"}
    site.ok("type", "delete", "vault", "--yes")
    assert "vault" not in site.ok("type", "list")
    wrong = site.run("type", "create", "half", "--encryption-provider", "luks", "--encryption-cipher", "x" * 300)
    assert wrong.code == 2
    assert "half" not in site.ok("type", "list")
    other = site.ok("type", "create", "fish", "--encryption-provider", "luks2", "--encryption-cipher",
                    "twofish-cbc-essiv:sha256", "--json")  # fmt: skip
    assert json.loads(other)["encryption"]["key_size"] == 256
    site.ok("type", "delete", "fish", "--yes")


def test_keys_go_in_and_never_come_out(site: Site, tmp_path: Path) -> None:
    canary = "canary-5f1c"
    (tmp_path / "passphrase").write_text(canary)
    site.ok("key", "register", "--file", str(tmp_path / "passphrase"), "--name", "file")
    site.ok("key", "register", "--file", "-", "--name", "stdin", stdin=canary)
    site.ok("key", "register", "--generate", "256", "--name", "made")
    listed = site.ok("key", "list", "--json") + site.ok("key", "show", "file", "--json")
    assert canary not in listed
    assert {item["name"]: item["type"] for item in site.run("key", "list", "--json").json} == {
        "file": "passphrase", "stdin": "passphrase", "made": "symmetric",
    }  # fmt: skip
    site.ok("key", "delete", "file", "stdin", "made", "--yes")
