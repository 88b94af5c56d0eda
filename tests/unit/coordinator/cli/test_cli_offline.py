"""`brickyard-coordinator` on a real state directory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import insert, text

from agent.base.terminal.entry import outcome
from agent.wire.joining import HostBundle, JoinToken
from coordinator.cli.offline import db as offline
from coordinator.cli.service import service
from coordinator.keys import kek
from coordinator.quota.guard import RulesDiffer
from coordinator.quota.settings import QuotaSettings
from coordinator.quota.usage import used
from coordinator.server.settings import CoordinatorSection, CoordinatorSettings
from coordinator.server.start import open_state
from coordinator.state.database import Database
from coordinator.state.schema import HEAD, version
from coordinator.state.tables.fleet import hosts
from coordinator.state.transition import enter
from coordinator.state.upgrade import _config
from coordinator.state.usage import forget


@pytest.fixture
def settings(tmp_path: Path) -> CoordinatorSettings:
    made = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=tmp_path / "state", listen="127.0.0.1"))
    opened = open_state(made)
    opened.db.write_now(
        lambda conn: opened.keys.create(conn, project_id="p", user_id="u", type="passphrase", value=b"open sesame")
    )
    opened.db.close()
    return made


@pytest.fixture
def running(settings: CoordinatorSettings) -> Iterator[None]:
    """A coordinator has the database, as far as its lock tells."""
    opened = open_state(settings)
    yield
    opened.db.close()


def run(settings: CoordinatorSettings, *arguments: str) -> int:
    where = f"coordinator.state_dir={settings.state_dir}"
    return outcome(service, "brickyard-coordinator", [*arguments, "--set", where])


def secret(settings: CoordinatorSettings) -> bytes:
    """The value of the one secret, opened by the key file as it is now."""
    opened = open_state(settings)
    try:
        (row,) = opened.db.read_now(lambda conn: opened.keys.listing(conn, None))
        return opened.db.read_now(lambda conn: opened.keys.get(conn, row.id)).value
    finally:
        opened.db.close()


@pytest.mark.usefixtures("running")
def test_check_beside_a_running_coordinator(settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings, "db", "check") == 0
    assert "no problem found" in capsys.readouterr().out


def test_check_finds_what_differs(settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(settings.database_file) as db:
        db.execute("DROP INDEX ix_operations_resource")
    assert run(settings, "db", "check") == 6
    assert "ix_operations_resource" in capsys.readouterr().err


@pytest.mark.usefixtures("running")
def test_a_backup_is_whole_and_never_overwrites(
    settings: CoordinatorSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "backup.db"
    assert run(settings, "db", "backup", str(copy)) == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM secrets").fetchone() == (1,)
    before = copy.read_bytes()
    assert run(settings, "db", "backup", str(copy)) == 5
    assert copy.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "state"]


@pytest.mark.usefixtures("running")
def test_a_backup_comes_to_its_end_however_much_is_written_meanwhile(
    settings: CoordinatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(name: str) -> None:
        if name != "backup.pages":
            return
        with sqlite3.connect(settings.database_file, timeout=10) as db:
            db.execute("UPDATE secrets SET name = ?", (f"n{len(written)}",))
        written.append(name)
        assert len(written) < 2000, "the copy began anew with each change"

    monkeypatch.setattr(offline, "PAGES", 8)
    monkeypatch.setattr(offline, "fault_point", write)
    copy = tmp_path / "backup.db"
    assert run(settings, "db", "backup", str(copy)) == 0
    assert len(written) > 3
    with sqlite3.connect(copy) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT name FROM secrets").fetchall() == [(None,)]


def test_upgrade_of_what_is_new_does_nothing(settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings, "db", "upgrade") == 0
    assert "already" in capsys.readouterr().out


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("arguments", [("db", "upgrade"), ("key", "rotate")])
def test_what_needs_the_database_alone_is_refused(
    settings: CoordinatorSettings, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, *arguments) == 6
    assert "in use by process" in capsys.readouterr().err


def test_rotation_seals_everything_anew(settings: CoordinatorSettings) -> None:
    path = settings.state_dir / "kek"
    (former,) = kek.load(path)
    assert run(settings, "key", "rotate") == 0
    (fresh,) = kek.load(path)
    assert fresh.id != former.id
    assert secret(settings) == b"open sesame"


def test_rotation_goes_on_after_a_kill_between_file_and_database(settings: CoordinatorSettings) -> None:
    path = settings.state_dir / "kek"
    kek.store(path, (kek.Kek.generate(), *kek.load(path)))
    assert secret(settings) == b"open sesame"
    assert run(settings, "key", "rotate") == 0
    assert len(kek.load(path)) == 1
    assert secret(settings) == b"open sesame"


@pytest.mark.usefixtures("running")
def test_a_token_is_one_line_for_the_enrolment_port(
    settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, "host", "token", "host-x", "--address", "192.0.2.7") == 0
    token = JoinToken.parse(capsys.readouterr().out)
    assert (token.address, token.port) == ("192.0.2.7", settings.enrolment.port)


@pytest.mark.usefixtures("running")
def test_a_bundle_is_for_its_owner_alone(
    settings: CoordinatorSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bundle.json"
    assert run(settings, "host", "bundle", "host-x", str(file), "--address", "192.0.2.7") == 0
    assert HostBundle.model_validate_json(file.read_bytes()).name == "host-x"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [("db", "check"), ("db", "backup", "x"), ("db", "upgrade"), ("key", "rotate"), ("host", "token")]
)
def test_without_a_site_it_is_said(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    empty = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=tmp_path / "none"))
    assert run(empty, *arguments) == 4
    assert "Start the coordinator once" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_config_check_and_reference(
    settings: CoordinatorSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, "config", "check") == 0
    file = tmp_path / "c.toml"
    file.write_text("[coordinator]\nprt = 1\n")
    assert outcome(service, "x", ["config", "check", "--config", str(file)]) == 2
    assert f"{file}:2: coordinator.prt" in capsys.readouterr().err
    assert outcome(service, "x", ["config", "reference"]) == 0
    assert "| `coordinator.port` |" in capsys.readouterr().out


def test_a_missing_configuration_file_under_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(service, "x", ["config", "check", "--config", str(tmp_path / "none.toml")]) == 2
    assert json.dumps(str(tmp_path / "none.toml")).strip('"') in capsys.readouterr().err


@pytest.mark.usefixtures("running")
def test_purge_beside_a_running_coordinator(settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings, "db", "purge") == 0
    assert "Nothing is past its time" in capsys.readouterr().out
    with sqlite3.connect(settings.database_file) as conn:
        conn.execute("INSERT INTO identity_revoked (token_id, expires) VALUES ('old', 1.0)")
    conn.close()
    for _ in range(2):
        assert run(settings, "db", "purge", "--dry-run") == 0
        assert capsys.readouterr().out == "revoked tokens: 1 would be dropped\n"
    assert run(settings, "db", "purge") == 0
    assert capsys.readouterr().out == "revoked tokens: 1 dropped\n"


def test_users_travel_by_file(
    settings: CoordinatorSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "users.json", tmp_path / "other"
    assert run(settings, "identity", "export", str(file)) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert run(settings, "identity", "export", str(file)) == 5
    content = json.loads(file.read_text())
    content["users"].append({**content["users"][0], "id": "f" * 32, "name": "ann"})
    file.write_text(json.dumps(content))
    second = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=other, listen="127.0.0.1"))
    open_state(second).db.close()
    capsys.readouterr()
    assert run(second, "identity", "import", str(file)) == 0
    assert "1 users" in capsys.readouterr().out
    assert run(second, "identity", "import", str(file)) == 0
    assert "0 users" in capsys.readouterr().out
    file.write_text("[")
    assert run(second, "identity", "import", str(file)) == 2
    assert "is not JSON" in capsys.readouterr().err


@pytest.mark.usefixtures("running")
def test_users_are_exported_but_not_imported_beside_a_running_coordinator(
    settings: CoordinatorSettings, tmp_path: Path
) -> None:
    assert run(settings, "identity", "export", str(tmp_path / "users.json")) == 0
    assert run(settings, "identity", "import", str(tmp_path / "users.json")) == 6


def test_counting_differently_is_a_command_while_nobody_serves(
    settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, "quota", "change", "--set", "quota.driver=dynamic") == 0, "a new site keeps sums"
    assert "quota.driver: stored -> dynamic" in capsys.readouterr().out
    settings = settings.model_copy(update={"quota": QuotaSettings(driver="dynamic")})
    opened = open_state(settings)
    values = {"id": "v", "project_id": "p", "user_id": "u", "size": 2}
    opened.db.write_now(lambda conn: enter(conn, "volume", "create", **values))
    assert run(settings, "quota", "change") == 6, "the database is held"
    opened.db.close()
    stored = settings.model_copy(update={"quota": QuotaSettings(driver="stored")})
    with pytest.raises(RulesDiffer, match=r"quota\.driver is stored"):
        open_state(stored)
    assert run(settings, "quota", "check") == 0
    assert run(settings, "quota", "change", "--set", "quota.driver=stored") == 0
    told = capsys.readouterr().out
    assert "nothing to compare" in told
    assert "quota.driver: dynamic -> stored" in told
    with pytest.raises(RulesDiffer, match=r"quota\.driver is dynamic"):
        open_state(settings)
    opened = open_state(stored)
    assert opened.db.read_now(lambda conn: used(conn, "p")) == {"volumes": 1, "gigabytes": 2, "snapshots": 0}
    assert run(settings, "quota", "check") == 0
    opened.db.write_now(forget)
    assert run(settings, "quota", "check") == 6
    assert "kept {'volumes': 0" in capsys.readouterr().err
    assert run(settings, "quota", "sync") == 0
    assert run(settings, "quota", "check") == 0
    opened.db.close()


def test_keys_are_asked_to_move_and_waiting_for_it_ends(
    settings: CoordinatorSettings, running: None, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing lies anywhere: there is nothing to wait for.
    assert run(settings, "key", "move", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "target": "local", "at_local": 0, "at_barbican": 0, "at_vault": 0, "to_move": 0, "to_remove": 0}  # fmt: skip
    with sqlite3.connect(settings.database_file) as conn:
        row = dict.fromkeys((name for _, name, *_ in conn.execute("PRAGMA table_info(volumes)")))
        row |= {"id": "v1", "project_id": "p", "user_id": "u", "size": 1, "status": "available", "deleted": 0}
        (key,) = conn.execute(
            "UPDATE secrets SET external=1, deposit_name='n', manager='vault' RETURNING id"
        ).fetchone()
        row["encryption_key_id"] = key
        needed = {name: "" for _, name, _, notnull, default, _ in conn.execute("PRAGMA table_info(volumes)")
                  if notnull and default is None}  # fmt: skip
        values = {**needed, **{name: value for name, value in row.items() if value is not None}}
        values |= dict.fromkeys(("created_at", "updated_at"), "2026-01-01 00:00:00")
        marks = ",".join("?" for _ in values)
        conn.execute(f"INSERT INTO volumes ({','.join(values)}) VALUES ({marks})", tuple(values.values()))
    assert run(settings, "key", "move", "--json") == 78
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "keys.no-manager"
    table = ("--set", "keys.vault.address=http://127.0.0.1:1", "--set", "keys.vault.role_id=r")
    home = (*table, "--set", "keys.manager=local")
    assert run(settings, "key", "move", "--json", "--dry-run", *home) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["at_vault"], told["to_move"]) == (1, 1)
    assert run(settings, "key", "move", "--json", "--timeout", "0", *home) != 0
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], "1 keys" in error["message"]) == ("cli.keys-not-moved", True)
    with sqlite3.connect(settings.database_file) as conn:
        assert conn.execute("SELECT moving_to FROM secrets WHERE external").fetchall() == [("local",)]
    # The operator thinks better of it.
    assert run(settings, "key", "move", *table) == 0
    with sqlite3.connect(settings.database_file) as conn:
        assert conn.execute("SELECT moving_to FROM secrets WHERE external").fetchall() == [(None,)]


@pytest.mark.usefixtures("running")
def test_what_an_upgrade_would_do_is_told_beside_a_coordinator(
    settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings, "db", "upgrade", "--check") == 0
    assert capsys.readouterr().out == f"Schema {HEAD} already.\nNothing is in the way.\n"


def test_agents_that_would_get_no_work_are_in_the_way_of_an_upgrade(
    settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_state(settings)
    told = [{"id": "old", "facts": {"version": "0.0.9"}}, {"id": "new", "facts": {"version": "0.1.0"}}, {"id": "mute"}]
    opened.db.write_now(lambda conn: [conn.execute(insert(hosts).values(**one)) for one in told])
    opened.db.close()
    assert run(settings, "db", "upgrade", "--check") == 6
    assert "older than release 0.1 would get no work from this one: old (0.0.9)." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "code", "word"), [("0012", 0, f"Schema 0012: {int(HEAD) - 12} steps"), ("9999", 6, "9999")]
)
def test_an_older_or_newer_schema_is_only_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found: str, code: int, word: str
) -> None:
    made = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=tmp_path / "state", listen="127.0.0.1"))
    made.state_dir.mkdir(mode=0o700)
    db = Database.sqlite(made.database_file)
    db.write_now(lambda conn: command.upgrade(_config(conn), "0012"))
    db.write_now(lambda conn: conn.execute(text(f"UPDATE alembic_version SET version_num = '{found}'")).rowcount)
    assert run(made, "db", "upgrade", "--check") == code
    told = capsys.readouterr()
    assert word in told.out + told.err
    assert db.read_now(version) == found
    db.close()


@pytest.mark.parametrize(
    "url", ["mysql://me@db/cinder", "mysql+pymysql://me@db/cinder", "mariadb://me@db/x", "db2://x/y"]
)
def test_a_database_of_another_kind_is_refused_by_name(
    settings: CoordinatorSettings, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    where = ["--set", f"coordinator.state_dir={settings.state_dir}", "--set", f"state.url={url}"]
    assert outcome(service, "brickyard-coordinator", ["db", "check", *where]) == 78
    assert "does not begin with postgresql://" in capsys.readouterr().err


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    alone = "import sys; sys.modules['psycopg'] = None; from coordinator.server.main import main; main()"
    words = ["db", "check", "--set", f"coordinator.state_dir={tmp_path}", "--set", "state.url=postgresql://me@db/x"]
    line = [sys.executable, "-c", alone, *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 78, done.stderr
    assert "needs the Python package psycopg, which is not installed" in done.stderr
    assert "pip install 'brickyard[postgresql]'" in done.stderr
    assert "Traceback" not in done.stderr
