"""Work in a process of its own: results and errors as if it were done here, and nothing left of it afterwards."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from agent.base import aside
from agent.base.aside import Aside, AsideFailed
from agent.server.keys import ensure_key, load_key, signing_request
from agent.wire.errors import IdentityMissing

KEYS = "agent.server.keys"


@pytest.fixture
def keys() -> Iterator[Aside]:
    made = Aside(KEYS)
    yield made
    made.close()


def children() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # A thread that ends meanwhile has no children.
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in found if b"agent.base.aside" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_it_does_what_is_asked_and_ends_when_nothing_is(keys: Aside, tmp_path: Path) -> None:
    request = keys.call("new_request", str(tmp_path / "key.pem"), "host-a")
    assert request.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert signing_request(load_key(tmp_path / "key.pem"), "host-a").startswith("-----BEGIN")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    (pid,) = children()
    end = os.pidfd_open(pid)
    assert select.select([end], [], [], 60)[0], "it does not end by itself"
    os.close(end)
    assert keys.call("request", str(tmp_path / "key.pem"), "host-a").startswith("-----BEGIN")


def test_errors_are_those_that_were_raised(keys: Aside, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(IdentityMissing) as caught:
            keys.call("request", str(tmp_path / "none.pem"), "host-a")
        assert caught.value.context == {"path": str(tmp_path)}


def test_killed_between_calls_or_by_a_defect_it_is_started_again_or_told(keys: Aside, tmp_path: Path) -> None:
    ensure_key(tmp_path / "key.pem")
    for _ in range(2):
        assert keys.call("request", str(tmp_path / "key.pem"), "host-a")
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(AsideFailed, match="it ended"):
        keys.call("no such function")


def test_many_threads_share_one_process(keys: Aside, tmp_path: Path) -> None:
    ensure_key(tmp_path / "key.pem")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: keys.call("request", str(tmp_path / "key.pem"), f"host-{n}"), range(16)))
    assert len(set(found)) == 16
    assert len(children()) <= 1


def test_closed_it_is_gone_and_starts_anew(keys: Aside, tmp_path: Path) -> None:
    ensure_key(tmp_path / "key.pem")
    assert keys.call("request", str(tmp_path / "key.pem"), "host-a")
    keys.close()
    assert children() == set()
    assert keys.call("request", str(tmp_path / "key.pem"), "host-a")


def test_it_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    ensure_key(tmp_path / "key.pem")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            asking = Aside(KEYS)
            asking.call("request", str(tmp_path / "key.pem"), "host-a")
            os.write(write, str(asking._pid).encode())
        finally:
            os._exit(0)
    started = int(os.read(read, 32))
    os.waitpid(pid, 0)
    try:
        end = os.pidfd_open(started)
    except ProcessLookupError:
        return
    assert select.select([end], [], [], 60)[0], "it outlives who asked"
    os.close(end)


def test_in_an_environment_out_of_reach_the_work_is_done_here(
    keys: Aside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_key(tmp_path / "key.pem")
    monkeypatch.setattr(aside, "__file__", str(tmp_path / "elsewhere.py"))
    assert keys.call("request", str(tmp_path / "key.pem"), "host-a").startswith("-----BEGIN")
    assert children() == set()


def test_python_that_can_not_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3"
    python.write_bytes(b"no program")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(AsideFailed, match="Exec format error"):
        Aside(KEYS).call("request", "key.pem", "host-a")
