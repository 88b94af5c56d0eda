"""Agents one release older and newer are understood: no side needs what the other does not send."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import from_body
from agent.jobs.errors import UnknownKind
from agent.wire.jobs import JobRequest, JobStatus
from agent.wire.results import Pool
from tests.corpus.wire import shapes
from tests.unit.agent.jobs.support import Work, create, runner_at

RELEASES = sorted((Path(__file__).parents[3] / "corpus" / "wire").glob("*.json"))


@pytest.mark.parametrize("file", RELEASES, ids=lambda path: path.stem)
def test_no_side_needs_what_the_other_does_not_send(file: Path) -> None:
    older, newer = json.loads(file.read_text()), shapes()
    missing = older.keys() - newer.keys()
    assert not missing, f"models that are gone: {missing}"
    for name, old in older.items():
        new: dict[str, Any] = newer[name]
        assert set(new["required"]) <= set(old["fields"]), f"{name}: {file.stem} does not send what is needed now"
        assert set(old["required"]) <= set(new["fields"]), f"{name}: {file.stem} needs what is not sent any more"


def test_what_a_newer_one_adds_is_passed_over() -> None:
    body = {**create().body(), "flavour": "sweet"}
    assert JobRequest.model_validate(body) == create()
    status = {"key": "op/make/1", "epoch": 1, "kind": "volume.create", "state": "done", "seq": 1, "mood": "good"}
    assert JobStatus.model_validate(status).terminal
    pool = {"backend": "files", "name": "files", "driver": "file", "total_bytes": 1, "free_bytes": 1,
            "allocated_bytes": 0, "colour": "red"}  # fmt: skip
    assert Pool.model_validate(pool).cluster_name is None


async def test_work_that_an_older_agent_does_not_know_is_refused_by_name_and_not_begun(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        for change in ({"kind": "volume.fly"}, {"version": 9}):
            with pytest.raises(UnknownKind) as refused:
                await runner.accept(create().model_copy(update=change))
            told = from_body(refused.value.to_body())
            assert told.code == "job.unknown-kind"
            assert "release" in told.remedy
        assert await runner.listing() == []
        assert (await runner.accept(create().model_copy(update={"sent_at": time.time()}))).kind == "volume.create"
