"""How `brickyard` waits, fails, asks back, plans, and lists."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.base.terminal.entry import outcome
from agent.base.terminal.output import FORMS
from coordinator.cli.main import cli
from tests.integration.cli.site import BIN, Site


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
    site.ok("quota", "set", "admin", "gigabytes=-1")
    assert site.run("volume", "create", "huge", "--size", "9000000", "--wait", stdin="").code == 9
    site.ok("volume", "delete", "huge", "--yes", "--wait")
    site.ok("quota", "set", "admin", "gigabytes=1000")
    lost = site.run("message", "list", "--json").json[0]["id"]
    assert plan("message", "delete", lost)["loses"]
    there = ("--user", "planned", "--project", "planned")
    assert "not this role" in plan("role", "revoke", "reader", *there)["refused"]
    site.ok("role", "grant", "reader", *there)
    granted = plan("role", "revoke", "reader", *there)
    assert (granted["loses"], granted["refused"]) == ("what planned may do by it on the project planned", None)
    assert plan("volume", "rekey", "planned")["refused"] == "it is not encrypted"
    for noun in ("volume", "image", "key", "type", "project", "user"):
        assert "planned" in site.ok(noun, "list")
    assert "planned" in site.ok("role", "assignments", *there)
    assert lost in site.ok("message", "list")
    site.ok("role", "revoke", "reader", *there)
    site.ok("message", "delete", lost)
    for noun in ("image", "key", "type", "project", "user"):
        site.ok(noun, "delete", "planned", "--yes")
    assert site.ok("volume", "revert", "kept", "--yes", "--wait", "-o", "value", "-c", "status") == "available\n"
    site.ok("volume", "delete", "planned", "--cascade", "--yes", "--wait")
    assert site.run("snapshot", "list", "--json").json == []


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
