"""The commands of `brickyard` against a whole site of real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.base.terminal.entry import outcome
from agent.base.terminal.output import FORMS
from coordinator.cli.client.credentials import exports
from coordinator.cli.main import cli
from tests.support.luks import opens

BIN = Path(sys.executable).parent


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Site:
    """A development site with one agent."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Ran:
        done = subprocess.run(
            [BIN / "brickyard", *arguments], env={**self.environment, **environment}, input=stdin, text=True,
            capture_output=True, timeout=60, check=False, **({} if stdin is not None else {"stdin": None}),
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin if stdin is not None else "")
        assert done.code == 0, done.err
        return done.out

    def agent(self, *arguments: str) -> Ran:
        command = [BIN / "brickyard-agent", *arguments, "--config", self.folder / "host-a.toml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Not below pytest's own folder, which the user that the parts become can not enter."""
    with tempfile.TemporaryDirectory(prefix="brickyard-cli-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        command = [BIN / "brickyard", "dev", "--state-dir", folder / "site", "--port", "0"]
        with (folder / "err").open("w") as errors:
            dev = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        try:
            assert dev.stdout is not None
            for line in dev.stdout:
                if line.strip() == "ready":
                    break
            else:
                pytest.fail((folder / "err").read_text())
            plain = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
            yield Site(folder / "site", {**plain, **exports((folder / "site" / "openrc").read_text())})
        finally:
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(60) == 0
            assert dev.stdout is not None
            dev.stdout.close()


def test_a_volume_from_creation_to_deletion(site: Site) -> None:
    volume = site.ok("volume", "create", "life", "--size", "1", "--wait", "-o", "value").strip()
    assert site.run("volume", "show", "life", "--json").json["status"] == "available"
    assert site.ok("volume", "extend", "life", "2", "--wait", "-o", "value", "-c", "size") == "2\n"
    site.ok("volume", "set", "life", "--name", "lived", "--property", "a=b")
    assert site.run("volume", "show", volume, "--json").json["metadata"] == {"a": "b"}
    snapshot = site.ok("snapshot", "create", "lived", "snap", "--wait", "-o", "value").strip()
    assert site.ok("snapshot", "list", "-o", "value", "-c", "id") == f"{snapshot}\n"
    site.ok("volume", "create", "copy", "--snapshot", "snap", "--wait")
    assert site.ok("volume", "list", "-o", "value", "-c", "name").split() == ["copy", "lived"]
    site.ok("volume", "delete", "copy", "--yes", "--wait")
    site.ok("snapshot", "delete", "snap", "--yes", "--wait")
    site.ok("volume", "delete", "lived", "--yes", "--wait")
    assert site.run("volume", "list", "--json").json == []


def test_waiting_tells_of_the_work_on_stderr_alone(site: Site) -> None:
    done = site.run("volume", "create", "told", "--size", "1", "--wait", "-o", "value", stdin="")
    assert done.err.splitlines()[-1] == "create_volume: done"
    assert len(done.out.splitlines()) == 1
    quiet = site.run("volume", "delete", "told", "--yes", "--wait", "--json", stdin="")
    assert (quiet.err, quiet.json) == ("", {})


def test_an_operation_is_listed_shown_and_watched(site: Site) -> None:
    volume = site.ok("volume", "create", "work", "--size", "1", "--wait", "-o", "value").strip()
    (operation,) = site.run("operation", "list", "--resource", volume, "--json").json
    assert (operation["kind"], operation["state"]) == ("create_volume", "done")
    assert site.run("operation", "show", operation["id"], "--json").json["steps"]
    lines = site.ok("operation", "watch", operation["id"], "-o", "ndjson").splitlines()
    assert json.loads(lines[-1])["state"] == "done"
    site.ok("volume", "delete", "work", "--yes", "--wait")


def test_what_fails_later_fails_the_waiting_command(site: Site) -> None:
    site.ok("quota", "set", "admin", "gigabytes=-1")
    done = site.run("volume", "create", "huge", "--size", "9000000", "--wait", "--json", stdin="")
    assert (done.code, done.json["error"]["code"]) == (9, "scheduler.no-pool")
    assert site.run("message", "list", "--json").json
    site.ok("volume", "delete", "huge", "--yes", "--wait")
    site.ok("quota", "set", "admin", "gigabytes=1000")
    assert site.run("volume", "create", "big", "--size", "2000", stdin="").code == 8


def test_destruction_wants_a_word(site: Site) -> None:
    site.ok("volume", "create", "dear", "--size", "1", "--wait")
    refused = site.run("volume", "delete", "dear", stdin="")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert site.run("volume", "delete", "none", "--yes", "--json", stdin="").json["error"]["code"] == "cli.no-such"
    assert site.ok("volume", "repair", "dear", "--dry-run").splitlines()[0].split() == ["SENTENCE", "SAFE", "DONE"]
    site.ok("volume", "delete", "dear", "--yes", "--wait")


def test_a_plan_names_what_would_be_lost_and_changes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(1 << 20))
    volume = site.ok("volume", "create", "planned", "--size", "1", "--wait", "-o", "value").strip()
    site.ok("snapshot", "create", "planned", "kept", "--wait")
    site.ok("image", "create", "planned", "--file", str(tmp_path / "raw"))
    site.ok("key", "register", "--generate", "256", "--name", "planned")
    site.ok("type", "create", "planned")
    site.ok("project", "create", "planned")
    site.ok("user", "create", "planned", "--password-stdin", stdin="long enough 1\n")
    (operation,) = [one["id"] for one in site.run("operation", "list", "--resource", volume, "--json").json]

    def plan(*words: str) -> dict[str, Any]:
        (row,) = site.run(*words, "--dry-run", "--json", stdin="").json
        return dict(row)

    alone = plan("volume", "delete", "planned")
    assert (alone["id"], alone["loses"], alone["refused"]) == (
        volume, "1 GiB of data", "it has snapshots kept: give --cascade")  # fmt: skip
    together = plan("volume", "delete", "planned", "--cascade")
    assert (together["loses"], together["refused"]) == ("1 GiB of data and snapshots kept", None)
    assert "written since" in plan("volume", "revert", "kept")["loses"]
    assert "data stay" in plan("volume", "unmanage", "planned")["loses"]
    assert volume in plan("snapshot", "delete", "kept")["loses"]
    assert plan("image", "delete", "planned")["loses"] == "1048576 bytes of data"
    for noun in ("key", "type", "project", "user"):
        assert plan(noun, "delete", "planned")["loses"]
    assert plan("operation", "cancel", operation)["loses"] == "what create_volume has done so far"
    for noun in ("volume", "image", "key", "type", "project", "user"):
        assert "planned" in site.ok(noun, "list")
    for noun in ("image", "key", "type", "project", "user"):
        site.ok(noun, "delete", "planned", "--yes")
    assert site.ok("volume", "revert", "kept", "--yes", "--wait", "-o", "value", "-c", "status") == "available\n"
    site.ok("volume", "delete", "planned", "--cascade", "--yes", "--wait")
    assert site.run("snapshot", "list", "--json").json == []


def test_leave_and_come_back(site: Site) -> None:
    volume = site.ok("volume", "create", "leaving", "--size", "1", "--wait", "-o", "value").strip()
    pool = site.run("volume", "show", volume, "--json").json["os-vol-host-attr:host"]
    site.ok("volume", "unmanage", "leaving", "--yes", "--wait")
    (row,) = [one for one in json.loads(site.ok("volume", "manageable", pool, "--json")) if one["safe_to_manage"]]
    assert row["reference"] == f"volume-{volume}"
    site.ok("volume", "manage", pool, row["reference"], "--name", "back", "--property", "a=b", "--wait")
    assert site.run("volume", "show", "back", "--json").json["status"] == "available"
    site.ok("volume", "delete", "back", "--yes", "--wait")


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


def test_images_go_up_and_come_back(site: Site, tmp_path: Path) -> None:
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    source.write_bytes(os.urandom(3 << 20))
    site.ok("image", "create", "golden", "--file", str(source), "--property", "a=b")
    shown = site.run("image", "show", "golden", "--json").json
    assert (shown["status"], shown["size"], shown["a"]) == ("active", 3 << 20, "b")
    assert site.ok("image", "save", "golden", str(back), "-o", "value").strip() == str(back)
    assert back.read_bytes() == source.read_bytes()
    assert site.run("image", "save", "golden", str(back)).code == 5
    site.ok("volume", "create", "golden", "--image", "golden", "--size", "1", "--wait")
    site.ok("volume", "delete", "golden", "--yes", "--wait")
    site.ok("image", "delete", "golden", "--yes")
    assert site.run("image", "list", "--json").json == []


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


def test_users_projects_and_roles(site: Site) -> None:
    site.ok("project", "create", "team")
    site.ok("user", "create", "ann", "--project", "team", "--password-stdin", stdin="long enough 1\n")
    assert site.run("volume", "list", OS_USERNAME="ann", OS_PASSWORD="long enough 1", OS_PROJECT_NAME="team").code == 3
    site.ok("role", "grant", "member", "--user", "ann", "--project", "team")
    (given,) = site.run("role", "assignments", "--user", "ann", "--json").json
    assert given == {"user": "ann", "role": "member", "scope": "project", "on": "team"}
    as_ann = {"OS_USERNAME": "ann", "OS_PASSWORD": "long enough 1", "OS_PROJECT_NAME": "team"}
    assert site.run("volume", "list", "--json", **as_ann).json == []
    assert site.run("host", "list", "--json", **as_ann).code == 3
    site.ok("role", "revoke", "member", "--user", "ann", "--project", "team")
    site.ok("user", "delete", "ann", "--yes")
    site.ok("project", "delete", "team", "--yes")


def test_hosts_tokens_and_services(site: Site) -> None:
    (host,) = site.run("host", "list", "--json").json
    assert (host["id"], host["state"]) == ("host-a", "up")
    assert site.run("host", "show", "host-a", "--json").json["pools"]
    assert site.run("host", "disable", "host-a", "--reason", "work", "--json").json["enabled"] is False
    assert site.run("host", "enable", "host-a", "--json").json["enabled"] is True
    assert site.ok("host", "token", "host-z", "-o", "value").startswith("byj1.")


def test_a_host_is_drained_and_waited_for(site: Site) -> None:
    site.ok("volume", "create", "stays", "--size", "1", "--wait")
    before = site.run("host", "drain", "host-a", "--dry-run", "--json").json
    assert (before["drained_at"], before["quiet"], before["working"]) == (None, False, [])
    done = site.run("host", "drain", "host-a", "--reason", "new memory", "--wait")
    assert done.code == 0, done.err
    assert "volumes" in done.out
    assert "are not moved to another one yet" in done.out
    assert "brickyard host enable host-a" in done.err
    refused = site.run("volume", "create", "more", "--size", "1", "--wait")
    assert (refused.code, "is disabled (new memory)" in refused.err) == (9, True)
    site.ok("volume", "delete", "stays", "more", "--yes", "--wait")
    assert site.run("host", "enable", "host-a", "--json").json["drained_at"] is None
    assert site.run("host", "drain", "host-a", "--dry-run", "--wait").code == 2
    assert site.run("host", "drain", "moon").code == 4


def test_the_site_is_read_only_for_a_while(site: Site) -> None:
    assert site.run("site", "read-only", "--reason", "it moves", "--json").json["reason"] == "it moves"
    refused = site.run("volume", "create", "never", "--size", "1")
    assert (refused.code, "read-only since" in refused.err, "it moves" in refused.err) == (7, True, True)
    assert site.run("volume", "list", "--json").json == []
    site.ok("site", "read-write")
    assert site.run("site", "show", "--json").json == {"since": None, "reason": None}


def test_services_issues_and_quota(site: Site) -> None:
    assert "cinder-volume" in site.ok("service", "list")
    assert site.ok("issue", "list").startswith("ID ")
    assert "volumes" in site.ok("quota", "show")


NOUNS = ("volume", "snapshot", "type", "attachment", "image", "key", "host", "operation", "issue", "message", "service",
         "user", "project", "role")  # fmt: skip


@pytest.mark.parametrize("noun", NOUNS)
def test_every_list_speaks_every_form(
    site: Site, noun: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    said = {}
    for form in FORMS:
        assert outcome(cli, "brickyard", [noun, "list", "-o", form]) == 0
        said[form] = capsys.readouterr().out
    rows = json.loads(said["json"])
    assert said["table"].splitlines()[0].isupper()
    assert len(said["table"].splitlines()) == len(rows) + 1
    assert [json.loads(line).keys() for line in said["ndjson"].splitlines()] == [row.keys() for row in rows]
    assert len(said["value"].splitlines()) == len(rows)


def test_ctrl_c_ends_a_watch_quietly(site: Site) -> None:
    command = [BIN / "brickyard", "host", "list", "--watch", "-o", "ndjson"]
    # A shell that starts the tests in the background makes them, and all below them, deaf to Ctrl-C.
    heard = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(heard, env=site.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline())["id"] == "host-a"
        child.send_signal(signal.SIGINT)
        assert (child.wait(60), child.stderr.read()) == (0, b"")


def test_the_host_is_looked_at_while_its_agent_runs(site: Site) -> None:
    volume = site.ok("volume", "create", "seen", "--size", "1", "--wait", "-o", "value").strip()
    assert f"volume {volume}" in site.agent("explain", volume).out
    findings = json.loads(site.agent("doctor", "--json").out)
    assert {item["state"] for item in findings if item["check"] in {"agent", "journal", "identity", "rights"}} == {"ok"}
    bundle = site.folder / "bundle.tar.gz"
    assert site.agent("support-bundle", str(bundle)).code == 0
    site.ok("volume", "delete", "seen", "--yes", "--wait")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices")
def test_attach_shows_the_device_and_detach_leaves_nothing(site: Site) -> None:
    volume = site.ok("volume", "create", "plug", "--size", "1", "--wait", "-o", "value").strip()
    made = json.loads(site.ok("volume", "attach", "plug", "host-a", "--wait", "--json"))
    device = made["device"]["device"]
    assert site.ok("attachment", "list", "-o", "value", "-c", "path") == f"{device}\n"
    assert f"device {device}" in site.agent("explain", volume).out
    (row,) = json.loads(site.ok("volume", "detach", "plug", "host-a", "--dry-run", "--json"))
    assert row["loses"].startswith(f"the device {device} on host host-a")
    assert json.loads(site.ok("attachment", "delete", made["id"], "--dry-run", "--json"))[0]["loses"] == row["loses"]
    refused = json.loads(site.ok("volume", "delete", "plug", "--dry-run", "--json"))[0]["refused"]
    assert refused.startswith("it is attached to")
    site.ok("volume", "detach", "plug", "host-a", "--wait")
    assert site.run("attachment", "list", "--json").json == []
    assert site.run("volume", "detach", "plug", "--json", stdin="").json["error"]["code"] == "cli.not-attached"
    backing = Path("/sys/block") / device.removeprefix("/dev/") / "loop" / "backing_file"
    assert not backing.exists() or volume not in backing.read_text()
    site.ok("volume", "delete", "plug", "--yes", "--wait")
