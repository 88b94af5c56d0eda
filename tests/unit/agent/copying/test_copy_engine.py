"""The copy engine on real files."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.copying.engine import copy
from agent.copying.errors import CopyCancelled, DestinationSmall, SourceShort
from agent.copying.model import Checkpoint, CopyOptions, CopyProgress, Dest, Source, by_fd, by_name, by_path

KIB, MIB = 1 << 10, 1 << 20


def lay(path, size, runs, seed=7):
    """A sparse file of `size` bytes with random data at each (offset, length)."""
    source = random.Random(seed)
    with path.open("wb") as out:
        out.truncate(size)
        for offset, length in runs:
            out.seek(offset)
            out.write(source.randbytes(max(0, min(length, size - offset))))
    return path


def allocated(path):
    return path.stat().st_blocks * 512


async def copied(source, dest, size, *, dest_size=None, skippable=True, checkpoint=None, seen=None, **options):
    dest.touch()
    return await copy(
        Source(by_path(source), size),
        Dest(by_path(dest), dest_size or size, zeros_skippable=skippable),
        CopyOptions(**options),
        (seen if seen is not None else []).append,
        checkpoint,
        asyncio.Event(),
    )


RUNS = st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(1, 600 * KIB)), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 3 * MIB),
    runs=RUNS,
    skippable=st.booleans(),
    direct=st.booleans(),
    reflink=st.booleans(),
    chunk=st.sampled_from([64 * KIB, 256 * KIB, 2 * MIB]),
    grow=st.integers(0, 100_000),
)
def test_any_layout_comes_out_the_same(  # noqa: PLR0917
    tmp_path, size, runs, skippable, direct, reflink, chunk, grow
):
    source = lay(tmp_path / "a", size, [(o, n) for o, n in runs if o < size])
    dest = tmp_path / "b"
    dest.write_bytes(b"old" * 50_000)
    result = asyncio.run(
        copied(
            source, dest, size, dest_size=size + grow, skippable=skippable, direct=direct, reflink=reflink, chunk=chunk
        )
    )
    assert dest.read_bytes() == source.read_bytes() + bytes(grow)
    assert result.size == dest.stat().st_size == size + grow
    if skippable:
        assert allocated(dest) <= allocated(source) + 64 * KIB
    else:
        assert allocated(dest) >= (size + grow) // 4096 * 4096


async def test_only_data_is_read_and_progress_adds_up(tmp_path):
    source = lay(tmp_path / "a", 64 * MIB, [(MIB, 3 * MIB), (40 * MIB, MIB)])
    seen: list[CopyProgress] = []
    result = await copied(source, tmp_path / "b", 64 * MIB, seen=seen, chunk=256 * KIB, phase="clone")
    assert result.moved == 4 * MIB
    assert (seen[-1].done, seen[-1].total, seen[-1].phase) == (4 * MIB, 4 * MIB, "clone")
    assert [p.done for p in seen] == sorted(p.done for p in seen)


async def test_zero_data_becomes_a_hole_where_the_destination_allows(tmp_path):
    source = tmp_path / "a"
    source.write_bytes(bytes(4 * MIB))
    await copied(source, tmp_path / "b", 4 * MIB, reflink=False, chunk=MIB)
    assert allocated(tmp_path / "b") == 0
    await copied(source, tmp_path / "c", 4 * MIB, skippable=False)
    assert allocated(tmp_path / "c") >= 4 * MIB


async def test_checkpoint_is_behind_the_data_and_resume_completes(tmp_path):
    source = lay(tmp_path / "a", 24 * MIB, [(0, 9 * MIB), (12 * MIB, 7 * MIB + 123)])
    dest = tmp_path / "b"
    notes: list[int] = []

    async def save(offset: int) -> None:
        assert dest.read_bytes()[:offset] == source.read_bytes()[:offset]
        notes.append(offset)
        if len(notes) == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await copied(
            source, dest, 24 * MIB, checkpoint=Checkpoint(0, save), chunk=MIB, checkpoint_every=2 * MIB, reflink=False
        )
    assert notes == sorted(notes)
    with dest.open("r+b") as out:
        out.seek(notes[-1] + 5)
        out.write(b"garbage of the first run")
    later: list[int] = []

    async def note(offset: int) -> None:
        later.append(offset)

    seen: list[CopyProgress] = []
    result = await copied(
        source, dest, 24 * MIB, checkpoint=Checkpoint(notes[-1], note), seen=seen, chunk=MIB, reflink=False
    )
    assert dest.read_bytes() == source.read_bytes()
    assert later[-1] == 24 * MIB
    assert result.moved < 16 * MIB
    assert seen[-1].done == seen[-1].total > result.moved


async def test_a_checkpoint_of_another_file_is_not_believed(tmp_path):
    source = lay(tmp_path / "a", 4 * MIB, [(0, 4 * MIB)])

    async def note(_: int) -> None: ...

    await copied(source, tmp_path / "b", 4 * MIB, checkpoint=Checkpoint(3 * MIB, note), reflink=False)
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


async def test_a_copy_is_never_faster_than_its_limit_by_more_than_a_tenth(tmp_path):
    source = lay(tmp_path / "a", 8 * MIB, [(0, 8 * MIB)])
    rate = 8 * MIB
    before = time.monotonic()
    await copied(source, tmp_path / "b", 8 * MIB, rate_limit=rate, reflink=False)
    assert time.monotonic() - before >= 0.9
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


async def test_cancel_stops_soon_and_closes_everything(tmp_path):
    source = lay(tmp_path / "a", 64 * MIB, [(0, 64 * MIB)])
    (tmp_path / "b").touch()
    before, cancel = len(os.listdir("/proc/self/fd")), asyncio.Event()
    work = asyncio.create_task(
        copy(
            Source(by_path(source), 64 * MIB), Dest(by_path(tmp_path / "b"), 64 * MIB, zeros_skippable=True),
            CopyOptions(rate_limit=MIB, reflink=False), lambda _: None, None, cancel,
        )
    )  # fmt: skip
    await asyncio.sleep(0.2)
    cancel.set()
    began = time.monotonic()
    with pytest.raises(CopyCancelled):
        await work
    assert time.monotonic() - began < 30  # the whole would take a minute
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_cancelled_task_ends_its_threads_first(tmp_path):
    source = lay(tmp_path / "a", 8 * MIB, [(0, 8 * MIB)])
    work = asyncio.create_task(copied(source, tmp_path / "b", 8 * MIB, rate_limit=MIB, reflink=False))
    await asyncio.sleep(0.2)
    before = len(os.listdir("/proc/self/fd"))
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert len(os.listdir("/proc/self/fd")) < before
    size = allocated(tmp_path / "b")
    await asyncio.sleep(0.2)
    assert allocated(tmp_path / "b") == size


async def test_openers_by_descriptor_and_by_name(tmp_path):
    source = lay(tmp_path / "a", MIB, [(0, MIB)])
    (tmp_path / "b").touch()
    with source.open("rb") as opened:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            await copy(
                Source(by_fd(opened.fileno()), MIB), Dest(by_name(folder, "b"), MIB), CopyOptions(),
                lambda _: None, None, asyncio.Event(),
            )  # fmt: skip
        finally:
            os.close(folder)
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


async def test_a_symbolic_link_is_refused(tmp_path):
    source = lay(tmp_path / "a", MIB, [(0, MIB)])
    (tmp_path / "target").write_bytes(b"keep")
    (tmp_path / "b").symlink_to(tmp_path / "target")
    with pytest.raises(Exception, match=r"destination of the copy can not be used"):
        await copied(source, tmp_path / "b", MIB)
    assert (tmp_path / "target").read_bytes() == b"keep"


async def test_source_that_shrank_is_told(tmp_path):
    source = lay(tmp_path / "a", 2 * MIB, [(0, 2 * MIB)])
    with pytest.raises(SourceShort):
        await copied(source, tmp_path / "b", 3 * MIB, skippable=False)


async def test_destination_must_hold_the_source(tmp_path):
    source = lay(tmp_path / "a", 2 * MIB, [(0, 2 * MIB)])
    with pytest.raises(DestinationSmall):
        await copied(source, tmp_path / "b", 2 * MIB, dest_size=MIB)


async def test_nothing_blocks_the_event_loop(tmp_path):
    source = lay(tmp_path / "a", 3 * MIB, [(0, 2 * MIB)])

    async def note(_: int) -> None: ...

    (tmp_path / "b").touch()
    with blockbuster_ctx():
        await copy(
            Source(by_path(source), 3 * MIB), Dest(by_path(tmp_path / "b"), 3 * MIB), CopyOptions(reflink=False),
            lambda _: None, Checkpoint(0, note), asyncio.Event(),
        )  # fmt: skip
