"""Habits that no linter knows: one door for commands, no shell, no waiting by sleeping, nothing left undone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Where a process may be started: the one door, and the commands that start our own daemons.
MAY_START = (
    "agent/host/run.py",
    "agent/host/spawn.py",
    "agent/base/aside.py",
    "agent/privsep/",
    "coordinator/dev/",
    "coordinator/server/dev",
)
STARTERS = {
    "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "asyncio.create_subprocess_exec", "os.execv", "os.execve", "os.execvp", "os.execvpe", "os.posix_spawn", "os.fork",
}  # fmt: skip
NEVER = {
    "os.system",
    "os.popen",
    "asyncio.create_subprocess_shell",
    "subprocess.getoutput",
    "time.sleep",
    "eval",
    "exec",
}
UNDONE = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")


def trees() -> Iterator[tuple[str, str, ast.Module]]:
    for top in ("agent", "coordinator"):
        for path in sorted((ROOT / top).rglob("*.py")):
            text = path.read_text()
            yield str(path.relative_to(ROOT)), text, ast.parse(text)


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_commands_go_through_the_one_door() -> None:
    wrong = [
        f"{name}:{call.lineno} {called}"
        for name, _, tree in trees()
        for call, called in calls(tree)
        if called in STARTERS and not name.startswith(MAY_START)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_shell_and_no_sleep() -> None:
    wrong = [
        f"{name}:{call.lineno} {called}"
        for name, _, tree in trees()
        for call, called in calls(tree)
        if called in NEVER or any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in call.keywords)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_undone() -> None:
    wrong = [f"{name}: {found[0]}" for name, text, _ in trees() if (found := UNDONE.search(text))]
    wrong += [
        f"{name}:{node.lineno} NotImplementedError"
        for name, _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)
    ]
    assert not wrong, "\n".join(wrong)
