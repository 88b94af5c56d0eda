"""Who has a device open: by its number, whatever it was opened as; nobody is looked at who may hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host.openers import LOOKERS, openers
from tests.support.processes import NODE, needs_node, numbered, process

pytestmark = needs_node


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host on which `sdb` has a partition, and the partition's number is that of a device which is really there."""
    (tmp_path / "sys/block/sdb/sdb1").mkdir(parents=True)
    (tmp_path / "sys/block/sdb/dev").write_text("9:9999\n")
    (tmp_path / "sys/block/sdb/sdb1/partition").write_text("1\n")
    numbered(tmp_path / "sys/block/sdb/sdb1")
    return tmp_path


def seen(host: Path, name: str = "sdb", but: frozenset[str] = frozenset()) -> tuple[str, ...]:
    return openers(name, host / "sys", host / "proc", but=but)


def test_by_number_and_partition_but_for_those_who_only_look(host: Path) -> None:
    process(host / "proc", 4711, "qemu-system-x86", "/dev/null", f"{NODE}")
    process(host / "proc", 99, "multipathd", f"{NODE}")
    process(host / "proc", 100, "sh", "/dev/null", "socket:[17]", "pipe:[4]")
    assert seen(host) == ("process 99 (multipathd)", "process 4711 (qemu-system-x86)")
    assert seen(host, but=LOOKERS) == ("process 4711 (qemu-system-x86)",)
    assert seen(host, "sdc") == ()


def test_what_is_closed_meanwhile_hides_nothing(host: Path) -> None:
    process(host / "proc", 4711, "qemu", "/dev/brickyard-is-no-device", f"{NODE}", "/dev/gone/too")
    assert seen(host) == ("process 4711 (qemu)",)


def test_files_elsewhere_are_not_asked_what_they_are(host: Path) -> None:
    """They may lie on a server that hangs."""
    assert NODE is not None
    (host / "elsewhere").symlink_to(NODE)
    process(host / "proc", 4711, "qemu", f"{host}/elsewhere")
    assert seen(host) == ()


def test_a_host_without_proc_has_nobody(host: Path) -> None:
    assert seen(host) == ()
