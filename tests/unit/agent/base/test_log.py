from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.base.log import bound, configure, current_ids, get_logger, levels, set_level
from agent.wire.jobs import WireSecret

log = get_logger("test.log")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    yield stream
    root.handlers[:], root.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_the_ids_in_force(out: io.StringIO) -> None:
    with bound(request_id="req-1", operation=None), bound(job="o/s/1"):
        assert current_ids() == {"request_id": "req-1", "job": "o/s/1"}
        log.info("volume created", volume="v", size=5)
    log.info("after")
    first, second = lines(out)
    assert first["message"] == "volume created"
    assert (first["request_id"], first["job"], first["size"], first["level"]) == ("req-1", "o/s/1", 5, "info")
    assert first["logger"] == "test.log"
    assert "operation" not in first
    assert "job" not in second


async def test_ids_follow_into_tasks_and_do_not_leak_between_them(out: io.StringIO) -> None:
    async def work(number: int) -> None:
        with bound(job=str(number)):
            await asyncio.sleep(0)
            log.info("step", number=number)

    await asyncio.gather(*(work(number) for number in range(5)))
    assert all(line["job"] == str(line["number"]) for line in lines(out))


def test_levels_follow_a_second_configure(out: io.StringIO) -> None:
    log.debug("hidden")
    again = io.StringIO()
    configure("debug", json=True, stream=again)
    log.debug("seen")
    assert out.getvalue() == ""
    assert [line["message"] for line in lines(again)] == ["seen"]


def test_secrets_are_hidden_whatever_way_they_come(out: io.StringIO) -> None:
    canary = "canary-4711"
    secret = WireSecret.of("passphrase", canary.encode())
    log.info("a", password=canary, secrets={"volume": secret}, job={"deep": [{"auth_token": canary}]})
    log.info("b", given=secret, raw=canary.encode(), headers={"X-Auth-Token": canary})
    log.info(f"password={canary} and https://user:{canary}@host/", note=f'"passphrase": "{canary}"')
    logging.getLogger("other.library").warning("Authorization: Bearer %s", canary)
    with bound(token=canary):
        log.info("c")
    text = out.getvalue()
    assert canary not in text
    assert str(secret.revealed()["value_b64"]) not in text
    assert len(lines(out)) == 5


def test_exceptions_are_told_without_local_variables(out: io.StringIO) -> None:
    def fail(argument: str) -> None:
        raise ValueError("odd")

    try:
        fail("-".join(["canary", "4712"]))
    except ValueError:
        log.exception("failed", volume="v")
    (line,) = lines(out)
    assert "ValueError: odd" in line["exception"]
    assert "canary-4712" not in out.getvalue()


def test_privsep_never_logs_its_arguments(out: io.StringIO) -> None:
    configure("debug", json=True, stream=out)
    logging.getLogger("oslo_privsep.daemon").debug("privsep: request(passphrase)")
    assert out.getvalue() == ""


def test_readable_lines_without_a_journal() -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    log.warning("slow", seconds=3)
    assert "slow" in stream.getvalue()
    assert "seconds=3" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_journal_gets_json_with_a_priority() -> None:
    program = "from agent.base.log import *; configure(); get_logger('x').error('bad', code=1)"
    read, write = os.pipe()
    status = os.fstat(write)
    journal = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    subprocess.run([sys.executable, "-c", program], stderr=write, env=journal, check=True)
    os.close(write)
    with os.fdopen(read) as source:
        text = source.read()
    assert text.startswith('<3>{"')
    assert json.loads(text[3:])["code"] == 1


def test_importing_the_logger_loads_no_rich() -> None:
    program = (
        "import agent.base.log, sys; assert not [m for m in sys.modules if m.split('.')[0] == 'rich']; import rich"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_levels_are_set_while_it_runs_and_secrets_stay_quiet() -> None:
    out = io.StringIO()
    try:
        configure("info", json=False, stream=out)
        here, there = get_logger("agent.levels.here"), get_logger("agent.levels.there")
        here.debug("one")
        set_level("agent.levels.here", "debug")
        here.debug("two")
        there.debug("three")
        assert levels("agent.levels.") == {"agent.levels.here": "DEBUG", "agent.levels.there": "INFO"}
        set_level("", "debug")
        there.debug("four")
        assert levels("urllib3")["urllib3"] == "INFO"
        set_level("sqlalchemy.engine", "debug")
        assert levels("sqlalchemy.engine")["sqlalchemy.engine"] == "WARNING"
        set_level("", "error")
        here.warning("five")
        assert set(levels("agent.levels.").values()) == {"ERROR"}
    finally:
        configure("info")
    assert [word for word in ("one", "two", "three", "four", "five") if word in out.getvalue()] == ["two", "four"]
