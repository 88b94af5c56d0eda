"""The support bundle: all parts, bounded, and nothing secret."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.diagnostics import bundle
from agent.diagnostics.place import Place
from agent.jobs import records
from tests.unit.agent.diagnostics import support

CANARY = "canary-7b1e3f5a"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A host on which a secret lies in every place where one may lie, and in some where none should."""
    place = support.made(tmp_path)
    support.certificate(place, -1, 29)
    (place.identity_dir / "key.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n")
    (place.backends["files"] / "volumes" / support.VOLUME).write_text(CANARY * 100)

    def failed(db: Any) -> None:
        record = support.job()(db)
        body = {
            "code": "x", "message": f"tool said: passphrase={CANARY} and token: {CANARY}", "status": 500,
            "context": {"password": CANARY, "url": f"https://user:{CANARY}@host/"},
        }  # fmt: skip
        db.execute("UPDATE jobs SET error = ?, state = 'failed' WHERE key = ?", (json.dumps(body), record.key))

    support.in_journal(place, failed)
    return place


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as found:
        files = {item.name: found.extractfile(item) for item in found.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_no_secret_is_in_the_bundle(place: Place, tmp_path: Path) -> None:
    settings = {"agent": {"host": "h"}, "plugin": {"password": CANARY, "text": f"secret={CANARY}"}}
    path = tmp_path / "bundle.tar.gz"
    bundle.write(place, settings, path)
    held = contents(path)
    assert len(held) > 10
    assert not [name for name, data in held.items() if CANARY.encode() in data]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_bundle_tells_what_is_needed(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    names = bundle.write(place, {}, path)
    held = {name.removeprefix("brickyard-support/"): data for name, data in contents(path).items()}
    assert list(held) == names
    assert json.loads(held["jobs.json"])[0]["key"] == "op/create/1"
    assert {finding["check"] for finding in json.loads(held["doctor.json"])} > {"journal", "space"}
    assert any(item["path"].endswith("key.pem") for item in json.loads(held["files.json"]))


def test_parts_are_bounded(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle.tar.gz"
    bundle.write(place, {"much": "x" * (3 * bundle.MOST_BYTES)}, path)
    held = contents(path)
    assert max(map(len, held.values())) <= bundle.MOST_BYTES
    assert held["brickyard-support/settings.json"].startswith(b"(the beginning was left out)")


def test_a_host_without_a_journal_still_gives_a_bundle(tmp_path: Path) -> None:
    place = replace(support.made(tmp_path), state_dir=tmp_path / "none")
    path = tmp_path / "bundle.tar.gz"
    bundle.write(place, {}, path)
    assert "not_told" in json.loads(contents(path)["brickyard-support/jobs.json"])


def test_nothing_is_overwritten(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_text("mine")
    with pytest.raises(bundle.BundleExists):
        bundle.write(place, {}, path)
    assert path.read_text() == "mine"


def test_records_stay_as_the_journal_wrote_them() -> None:
    assert records.Record.__dataclass_fields__.keys() >= {"key", "state", "error", "updated_at"}
