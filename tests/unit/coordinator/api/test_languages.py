"""Errors in the language of the caller."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.base.errors import NotFound
from agent.base.ids import new_id
from coordinator.api.faults import fault
from coordinator.api.languages import Languages
from tests.unit.coordinator.api.volumesite import volume_api

GERMAN = {
    "{noun} {id} could not be found.": "{noun} {id} wurde nicht gefunden.",
    "{reason}": "{nichts.davon}",
}


def catalogue(folder: Path, language: str, texts: dict[str, str]) -> Path:
    """A compiled catalogue, as msgfmt makes it."""
    texts = {"": "Content-Type: text/plain; charset=UTF-8\n", **texts}
    count, at, words = len(texts), 28 + 16 * len(texts), b""
    tables: tuple[list[int], list[int]] = ([], [])
    for table, chosen in zip(tables, (sorted(texts), [texts[key] for key in sorted(texts)]), strict=True):
        for text in chosen:
            raw = text.encode()
            table += [len(raw), at + len(words)]
            words += raw + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, at)
    path = folder / language / "LC_MESSAGES" / "brickyard.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(head + struct.pack(f"<{4 * count}I", *tables[0], *tables[1]) + words)
    return folder


@pytest.mark.parametrize(
    ("header", "german"),
    [
        ("de", True), ("de-AT, en;q=0.5", True), ("fr, de;q=0.7", True), ("xx;q=1.0,DE;q=0.1", True),
        ("en, de;q=0.9", False), ("en-GB,de", False), ("xx", False), ("de;q=0", False), ("de;q=no", False),
        ("", False), (None, False), ("*", False), (";;;,,q=", False), ("../../etc", False), ("d" * 9000, False),
    ],
)  # fmt: skip
def test_the_language_that_is_wished_for_most(tmp_path: Path, header: str | None, german: bool) -> None:
    found = Languages(catalogue(tmp_path, "de", GERMAN)).best(header)
    assert (found is not None) == german
    if found is not None:
        text = fault(NotFound(noun="Volume", id="x"), "/v3/volumes/x", found).text
        assert text is not None
        assert "Volume x wurde nicht gefunden." in text


async def test_a_fault_over_http_and_the_log_of_it(tmp_path: Path) -> None:
    folder = catalogue(tmp_path / "locale", "de", GERMAN)
    (folder / "it" / "LC_MESSAGES").mkdir(parents=True)
    (folder / "it" / "LC_MESSAGES" / "brickyard.mo").write_bytes(b"broken")
    async with volume_api(tmp_path, locale_dir=folder) as api:
        wanted = f"/volumes/{new_id()}"
        english = await api("GET", wanted)
        assert english.body["itemNotFound"]["message"].endswith("could not be found.")
        told = await api("GET", wanted, headers={"Accept-Language": "de"})
        assert told.body["itemNotFound"]["message"] == english.body["itemNotFound"]["message"].replace(
            "could not be found", "wurde nicht gefunden"
        )
        assert (told.status, list(told.body)) == (english.status, list(english.body))
        for header in ("xx", "it", "de;q"):
            assert (await api("GET", wanted, headers={"Accept-Language": header})).body == english.body
        # A catalogue that can not be filled in does no harm.
        bad = await api("GET", "/volumes?sort=nothing", headers={"Accept-Language": "de"})
        assert bad.body == (await api("GET", "/volumes?sort=nothing")).body
        ours = await api("GET", "/brickyard/v1/operations/x", headers={"Accept-Language": "de"})
        assert ours.body["error"]["message"].endswith("wurde nicht gefunden.")
