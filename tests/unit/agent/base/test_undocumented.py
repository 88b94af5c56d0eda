"""Code without its docstrings does what it did; only what it says about itself is gone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.undocumented import without_docstrings

SOURCE = '''
"""Module."""
class A:
    """Class."""
    x = "Class."
    def f(self):
        """Method."""
        return "other"
    class B:
        "Inner."
        y = 1
class C:
    z = "first constant"
class D:
    __doc__ = make()
def same():
    """Said and returned."""
    return "Said and returned."
def inner():
    """Outer."""
    def g(a="default"):
        """Inner."""
        return a
    return g
def plain():
    return "no docstring"
async def later():
    """Async."""
    return "later"
def generated():
    """Generator."""
    yield from ("a", "b")
constant = lambda: "lambda"
listed = ["x" + each for each in "ab"]
made = list("in genexpr" for _ in range(2))
'''


def run(source: str, *, stripped: bool) -> dict[str, Any]:
    code = compile(source, "made", "exec", dont_inherit=True)
    space: dict[str, Any] = {"make": lambda: "made up"}
    exec(without_docstrings(code) if stripped else code, space)
    return space


def test_docstrings_go_and_nothing_else_changes() -> None:
    full, bare = run(SOURCE, stripped=False), run(SOURCE, stripped=True)
    for space in (full, bare):
        assert space["A"].x == "Class."
        assert (space["A"]().f(), space["A"].B.y, space["C"].z) == ("other", 1, "first constant")
        assert (space["same"](), space["inner"]()(), space["plain"]()) == (
            "Said and returned.",
            "default",
            "no docstring",
        )
        assert (space["constant"](), space["listed"], space["made"]) == ("lambda", ["xa", "xb"], ["in genexpr"] * 2)
        assert list(space["generated"]()) == ["a", "b"]
        assert space["D"].__doc__ == "made up"
    gone = ["f", "B"]
    assert all(getattr(full["A"], name).__doc__ for name in gone)
    assert not any(getattr(bare["A"], name).__doc__ for name in gone)
    assert full["__doc__"] == "Module."
    assert bare["__doc__"] is None
    assert not any(bare[name].__doc__ for name in ("inner", "later", "generated"))
    assert bare["inner"]().__doc__ is None


def test_a_docstring_that_is_also_a_value_stays() -> None:
    bare = run(SOURCE, stripped=True)
    assert bare["same"].__doc__ == "Said and returned."
    assert bare["A"].__doc__ == "Class."


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=300), st.booleans())
def test_any_constants_survive(values: list[str], documented: bool) -> None:
    lines = [f"    v{number} = {value!r}" for number, value in enumerate(values)]
    said = '    """Not among them: \\u2603."""'
    body = [said, *lines] if documented else lines
    names = ", ".join(f"v{number}" for number in range(len(values)))
    source = "\n".join(["class K:", *body, "def f():", *body, f"    return [{names}]"])
    bare = run(source, stripped=True)
    assert bare["f"]() == values
    assert [getattr(bare["K"], f"v{number}") for number in range(len(values))] == values
    assert bare["f"].__doc__ is None
    assert bare["K"].__doc__ is None


@pytest.mark.parametrize("package", ["sqlalchemy", "asyncio"])
def test_what_is_named_is_loaded_without_and_the_rest_as_ever(package: str) -> None:
    code = (
        "import sys\nfrom agent.base import undocumented\n"
        f"undocumented.load([{package!r}])\nimport {package}, json.decoder, agent.base.ids, traceback\n"
        f"named = [m for n, m in sys.modules.items() if n.startswith({package!r} + '.')]\n"
        "told = [m.__name__ for m in named if m.__doc__ and m.__spec__.loader.__class__.__name__ == '_Loader']\n"
        "assert len(named) > 10 and not told, told\n"
        "assert json.decoder.__doc__ and json.decoder.JSONDecoder.__doc__ and agent.base.ids.__doc__\n"
        f"assert {package}.__spec__.loader.get_source({package!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
