"""The durable table of exports: complete sets, fenced by generation, secrets sealed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.jobs import exports
from agent.jobs.errors import StaleGeneration
from agent.jobs.exports import Wish
from agent.jobs.journal import Journal
from agent.jobs.sealing import HostKeyInvalid, Sealer
from agent.wire.chap import user_of
from agent.wire.jobs import Generation, WantedExport

VOLUME, ONE, TWO = new_id(), new_id(), new_id()


def wish(sequence: int, *wanted: str, sealed: str = "sealed") -> Wish:
    exported = tuple(
        WantedExport(attachment_id=each, protocol="iscsi", initiator="iqn.2026-01.org.x:h", auth="chap")
        for each in wanted
    )
    generation = Generation(incarnation=1, sequence=sequence)
    return Wish(VOLUME, "files", generation, exported, dict.fromkeys(wanted, sealed))


async def test_sets_follow_each_other_and_old_ones_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    try:
        await journal.write(partial(exports.decide, wish=wish(1, ONE)))
        rows = await journal.write(partial(exports.decide, wish=wish(3, TWO)))
        assert [(row.attachment_id, row.wanted) for row in rows] == [(TWO, True), (ONE, False)]
        with pytest.raises(StaleGeneration):
            await journal.write(partial(exports.decide, wish=wish(2, ONE)))
        again = await journal.write(partial(exports.decide, wish=wish(3, TWO)))
        assert again == rows
        await journal.write(lambda db: exports.remove(db, [ONE, TWO]))
        assert await journal.read(exports.all_rows) == []
        with pytest.raises(StaleGeneration):
            await journal.write(partial(exports.decide, wish=wish(2, ONE)))
        await journal.write(lambda db: exports.forget_volume(db, VOLUME))
        await journal.write(partial(exports.decide, wish=wish(1, ONE)))
    finally:
        await journal.close()


async def test_no_chap_user_begins_as_a_number_does_and_none_changes_while_it_is_let_in(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    number = "0b" + ONE[2:]
    try:
        rows = await journal.write(partial(exports.decide, wish=wish(1, number)))
        assert [row.settings.username for row in rows] == [f"id-{number}"]
        assert user_of(TWO) == TWO
        before = [replace(row, settings=replace(row.settings, username=number)) for row in rows[:1]]
        await journal.write(partial(exports.put, rows=before))
        again = await journal.write(partial(exports.decide, wish=wish(2, number)))
        assert again[0].settings.username == number
    finally:
        await journal.close()


async def test_a_host_logs_in_by_the_name_it_was_told_first_while_any_attachment_of_it_is_left(tmp_path: Path) -> None:
    journal, sealer = Journal(tmp_path / "journal.db"), Sealer(tmp_path / "host.key")
    await journal.open()

    async def decided(sequence: int, *wanted: str) -> list[tuple[str, bytes | None]]:
        before = await journal.read(lambda db: exports.of_volume(db, VOLUME))
        sealed = {each: sealer.seal(f"secret of {each}".encode(), each) for each in wanted}
        told = replace(wish(sequence, *wanted), sealed=sealed, logins=exports.logins_of(before, sealer))
        rows = await journal.write(partial(exports.decide, wish=told))
        await journal.write(lambda db: exports.remove(db, [row.attachment_id for row in rows if not row.wanted]))
        return [(row.settings.username, exports.secret_of(row, sealer)) for row in rows if row.wanted]

    first, second = (ONE, f"secret of {ONE}".encode()), (TWO, f"secret of {TWO}".encode())
    try:
        assert await decided(1, ONE, TWO) == [first, first]
        assert await decided(2, TWO) == [first]
        assert await decided(3, TWO) == [first]
        (tmp_path / "host.key").unlink()
        assert await decided(4, TWO) == [second]
    finally:
        await journal.close()


def test_secrets_are_sealed_under_the_hosts_own_key(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "host.key")
    sealed = sealer.seal(b"chap-canary-secret", ONE)
    assert "canary" not in sealed
    assert Sealer(tmp_path / "host.key").open(sealed, ONE) == b"chap-canary-secret"
    assert sealer.open(sealed, TWO) is None
    assert (tmp_path / "host.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "host.key").write_bytes(b"short")
    with pytest.raises(HostKeyInvalid, match="5 bytes"):
        sealer.open(sealed, ONE)
