"""Who may import whom: the table of ARCHITECTURE.md §2, checked on the graph of all imports (late ones too)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

_AGENT = {
    "base", "wire", "server", "cli", "jobs", "backends", "targets", "connectors", "zfcp", "eckd", "luks", "copying",
    "images", "backup", "privsep", "host", "diagnostics",
}  # fmt: skip
_COORDINATOR = {
    "api", "operations", "lifecycle", "fleet", "scheduler", "quota", "state", "identity", "keys", "images", "compute",
    "notifications", "enrolment", "server", "cli", "dev", "console",
}  # fmt: skip
# The models of the wire are also the words in which a back end or a target answers, and the state keeps answers.
_MODELS = {"agent.wire.jobs", "agent.wire.results"}


def _agent(*names: str) -> set[str]:
    return {f"agent.{name}" for name in names}


def _coordinator(*names: str) -> set[str]:
    return {f"coordinator.{name}" for name in names}


TABLE: dict[str, set[str]] = {
    "agent.base": set(),
    "agent.wire": set(),
    "agent.server": _agent(*_AGENT),
    "agent.cli": _agent(*_AGENT),
    "agent.jobs": _agent(
        "wire", "backends", "targets", "connectors", "luks", "copying", "images", "backup", "host", "privsep"
    ),
    "agent.backends": _agent("copying", "privsep", "host") | _MODELS,
    "agent.targets": _agent("copying", "privsep", "host") | _agent("wire"),
    "agent.connectors": _agent("zfcp", "eckd", "privsep", "host") | _MODELS,
    "agent.zfcp": _agent("privsep", "host"),
    "agent.eckd": _agent("privsep", "host"),
    "agent.luks": _agent("copying", "privsep", "host") | _MODELS,
    "agent.copying": _agent("host"),
    "agent.images": _agent("copying", "luks", "host") | _agent("wire"),
    "agent.backup": _agent("copying", "luks", "host") | _MODELS,
    "agent.privsep": _agent("host"),
    "agent.host": _MODELS,
    "agent.diagnostics": _agent(*(_AGENT - {"server", "cli"})),
    "coordinator.api": _coordinator(
        "operations", "lifecycle", "state", "quota", "scheduler", "identity", "keys", "images", "enrolment", "fleet"
    ),
    "coordinator.operations": _coordinator(
        "lifecycle", "scheduler", "quota", "state", "keys", "images", "compute", "notifications"
    )
    | _agent("wire"),
    "coordinator.lifecycle": set(),
    "coordinator.fleet": _coordinator("state", "lifecycle", "enrolment") | _agent("wire"),
    "coordinator.scheduler": _coordinator("state"),
    "coordinator.quota": _coordinator("state"),
    "coordinator.state": _coordinator("lifecycle") | _MODELS,
    "coordinator.identity": _coordinator("state"),
    "coordinator.keys": _coordinator("state"),
    "coordinator.images": _coordinator("state"),
    "coordinator.compute": _coordinator("state"),
    "coordinator.notifications": _coordinator("state"),
    "coordinator.enrolment": _coordinator("state") | _agent("wire"),
    "coordinator.server": _coordinator(*_COORDINATOR) | _agent("wire"),
    "coordinator.cli": _coordinator(*_COORDINATOR) | _agent("wire"),
    "coordinator.dev": _coordinator(*_COORDINATOR) | _agent(*_AGENT),
    "coordinator.console": _coordinator(*_COORDINATOR),
}

# Modules of others that only some of ours may import; `None`: nobody may.
THIRD_PARTIES: dict[str, tuple[str, ...]] = {
    "eventlet": (),
    "oslo_privsep": ("agent.privsep",),
    "oslo_rootwrap": ("agent.privsep", "agent.connectors._brick"),
    "os_brick": ("agent.connectors._brick",),
    "oslo_service": ("agent.connectors._brick", "agent.privsep", "coordinator.notifications.messaging"),
    "sqlite_utils": ("agent.jobs",),
    "pyroute2": ("agent.host",),
    "pyudev": ("agent.host",),
    "sqlalchemy": ("coordinator",),
    "alembic": ("coordinator.state",),
    "oslo_messaging": ("coordinator.notifications.messaging",),
    "oslo_policy": ("coordinator.identity", "coordinator.api"),
    "bcrypt": ("coordinator.identity",),
    "prometheus_client": ("agent.base.metrics",),
    "structlog": ("agent.base.log",),
}

# Families whose members must not know each other: a member is a module, or `NAME_part` beside it.
FAMILIES = {
    "agent.backends": ("file", "lvm", "rbd", "nfs", "cinder_driver"),
    "agent.connectors": ("local", "iscsi", "fc", "nvmeof", "rbd", "nfs", "eckd"),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("agent", "coordinator", include_external_packages=True, cache_dir=None)


def _ours(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for importer in graph.modules:
        if importer.startswith(("agent.", "coordinator.")):
            for imported in graph.find_modules_directly_imported_by(importer):
                yield importer, imported


def _where(graph: grimp.ImportGraph, importer: str, imported: str) -> str:
    lines = [str(found["line_number"]) for found in graph.get_import_details(importer=importer, imported=imported)]
    return f"{importer} (line {', '.join(lines)}) imports {imported}"


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_every_package_stands_in_the_table() -> None:
    there = {
        f"{top}.{folder.name}"
        for top in ("agent", "coordinator")
        for folder in (ROOT / top).iterdir()
        if folder.is_dir() and any(folder.rglob("*.py"))
    }
    assert there <= TABLE.keys()


def test_packages_import_only_what_the_table_allows(graph: grimp.ImportGraph) -> None:
    wrong = []
    for importer, imported in _ours(graph):
        own = _package(importer)
        if not imported.startswith(("agent.", "coordinator.")):
            continue
        allowed = TABLE.get(own, set()) | {own, "agent.base"}
        if not any(_is_in(imported, package) for package in allowed):
            wrong.append(f"{_where(graph, importer, imported)}; {own} may import {', '.join(sorted(allowed - {own}))}")
    assert not wrong, "\n".join(sorted(wrong))


def test_packages_of_others_are_imported_only_where_the_table_says(graph: grimp.ImportGraph) -> None:
    wrong = [
        f"{_where(graph, importer, imported)}; only {', '.join(THIRD_PARTIES[imported]) or 'nobody'} may"
        for importer, imported in _ours(graph)
        if imported in THIRD_PARTIES and not any(_is_in(importer, place) for place in THIRD_PARTIES[imported])
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_members_of_a_family_do_not_know_each_other(graph: grimp.ImportGraph) -> None:
    def member(module: str) -> tuple[str, str] | None:
        for family, names in FAMILIES.items():
            rest = module.removeprefix(family + ".") if _is_in(module, family) else ""
            for name in names:
                if rest.split(".")[0] == name or rest.startswith(name + "_"):
                    return family, name
        return None

    wrong = []
    for importer, imported in _ours(graph):
        one, other = member(importer), member(imported)
        if one and other and one[0] == other[0] and one != other:
            wrong.append(_where(graph, importer, imported))
    assert not wrong, "\n".join(sorted(wrong))


def test_the_top_packages_are_empty() -> None:
    for top in ("agent", "coordinator"):
        lines = (ROOT / top / "__init__.py").read_text().splitlines()
        assert not [line for line in lines if line.startswith(("import ", "from "))]


BLOCKER = """
import importlib, importlib.abc, pkgutil, sys
ABSENT = {"sqlite_utils", "pyroute2", "pyudev", "os_brick", "oslo_privsep", "oslo_service", "oslo_rootwrap", "eventlet"}
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not installed here")
sys.meta_path.insert(0, Absent())
import agent.wire
for found in pkgutil.walk_packages(agent.wire.__path__, "agent.wire."):
    importlib.import_module(found.name)
"""


def test_the_wire_needs_only_what_a_coordinator_has() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKER], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
