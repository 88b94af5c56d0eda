"""What functions import is loaded before root is given up, where the environment lies below a folder of root alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
# Commands of an administrator, terminals, and what only a configured connector of that library loads.
ELSEWHERE = (
    "alembic",
    "click",
    "rich",
    "os_brick",
    "oslo_rootwrap",
    "oslo_service",
    "coordinator.cli",
    "coordinator.dev",
)
SAYS = """
import sys
from agent.base import lean
lean.prepare()
{}
print(*(name for name, module in sys.modules.items() if module is not None and type(module).__name__ != "_Later"))
"""
COORDINATOR = SAYS.format("""
from pathlib import Path
from agent.privsep.preload import preload
from coordinator.dev import central
from coordinator.server.settings import CoordinatorSettings
from agent.base.config import load
more = ("state.url=postgresql:///x", "notifications.messaging.transport_url=fake://")
preload(central.late_modules(load(CoordinatorSettings, Path(sys.argv[1]), more)))
""")
AGENT = SAYS.format("""
from agent.jobs.registry import LATE_MODULES
from agent.privsep import start
from agent.privsep.preload import preload
preload([*start.late_modules(), *LATE_MODULES])
""")


def imports_in_functions(folders: tuple[str, ...], but: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(Module that is imported, who imports it)."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        ours = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if ours.startswith(but):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        yield from ((each.name, ours) for each in node.names)
                    elif isinstance(node, ast.ImportFrom) and node.module:
                        yield node.module, ours
                        yield from ((f"{node.module}.{each.name}", ours) for each in node.names)


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@pytest.mark.parametrize(
    ("program", "folders", "but"),
    [
        (COORDINATOR, ("coordinator", "agent/base", "agent/luks", "agent/wire"),
         ("coordinator.cli", "coordinator.dev", "coordinator.state.migrations")),
        (AGENT, ("agent",), ("agent.cli", "agent.diagnostics")),
    ],
    ids=["coordinator", "agent"],
)  # fmt: skip
def test_nothing_is_loaded_later(program: str, folders: tuple[str, ...], but: tuple[str, ...], tmp_path: Path) -> None:
    settings = tmp_path / "coordinator.toml"
    settings.touch()
    done = subprocess.run(
        [sys.executable, "-c", program, str(settings)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    missed = {
        f"{name} by {who}"
        for name, who in imports_in_functions(folders, but)
        if name not in loaded and name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith(ELSEWHERE) and is_module(name)
    }  # fmt: skip
    assert missed == set()
