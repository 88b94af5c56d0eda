"""The documentation is whole: generated pages are fresh, links lead somewhere, commands that it names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATE = [sys.executable, "docs/generate.py", "--check"]


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(GENERATE, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun: make docs-reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, ahead = set[Path](), [ROOT / "docs" / "index.md", ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text())
        ahead += [(page.parent / link).resolve() for link in links]
    assert not set((ROOT / "docs").rglob("*.md")) - seen


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", page.read_text())
        for name in name
    }
    assert named - {""} <= targets


def test_errors_say_what_to_do_in_whole_sentences() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs/reference/errors.md").read_text().splitlines()]
    hints = {row[0].strip("| `"): row[-1].strip(" |") for row in rows if len(row) == 5 and row[0].startswith("| `")}
    assert len(hints) > 20
    assert not {code: hint for code, hint in hints.items() if hint and not hint.endswith((".", "}", "…"))}


def test_change_notes_are_named_so_that_they_are_found() -> None:
    kinds = set(re.findall(r'^directory = "([a-z]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)) - {
        "changes"
    }
    notes = [path for path in (ROOT / "changes").iterdir() if path.suffix == ".md"]
    assert notes
    assert not [
        path.name for path in notes if path.suffixes[-2].lstrip(".") not in kinds or not path.read_text().strip()
    ]


def test_error_codes_have_one_form() -> None:
    codes = re.findall(r"^\| `([^`]+)`", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    assert not [code for code in codes if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", code)]
