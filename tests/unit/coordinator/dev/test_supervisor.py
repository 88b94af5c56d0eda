"""What the supervisor of a development site hears, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from coordinator.dev import supervisor

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x1e\x1f"))


@given(st.lists(_TEXT, min_size=1))
def test_fields_survive_the_line(given: list[str]) -> None:
    said = supervisor.line(*given)
    assert said.endswith(b"\n")
    assert said.count(b"\n") == 1
    assert supervisor.fields(said[:-1]) == given


def test_it_loads_little() -> None:
    code = (
        f"import sys\n__name__ = 'loaded'\nexec(open({str(Path(supervisor.__file__))!r}).read())\n"
        "print(*sorted({'enum', 'json', 're', 'typing', 'pathlib', 'socket', 'signal'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
