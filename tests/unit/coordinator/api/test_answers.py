"""An answer against its schema: all of it where that is an error, a few entries of long lists where it is a warning."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from coordinator.api import answers
from coordinator.api.errors import AnswerInvalid
from coordinator.api.fields import Answer


class Thing(Answer):
    size: int


class Things(Answer):
    things: list[Thing]


def page(*sizes: object) -> dict[str, object]:
    return {"things": [{"size": size} for size in sizes]}


def test_a_warning_is_one_line_that_names_the_call_and_what_is_wrong() -> None:
    with capture_logs() as logs:
        answers.finished(Things, page("none", 1, "neither"), 71, "warn", "GET /things")
    assert [(line["log_level"], line["route"]) for line in logs] == [("warning", "GET /things")]
    assert "things.0.size" in logs[0]["reason"]
    assert "things.2.size" in logs[0]["reason"]


def warned(data: dict[str, object]) -> bool:
    with capture_logs() as logs:
        assert answers.finished(Things, data, 71, "warn", "GET /things") is data
    return bool(logs)


def test_one_wrong_entry_of_a_page_is_an_error_where_that_is_wanted() -> None:
    with pytest.raises(AnswerInvalid):
        answers.finished(Things, page(*range(99), "none"), 71, "error", "GET /things")


def test_a_page_of_wrong_entries_is_warned_of() -> None:
    assert warned(page(*["none"] * 100))
    assert not warned(page(*range(100)))


def test_one_wrong_entry_of_a_page_is_warned_of_sooner_or_later() -> None:
    seen = sum(warned(page(*range(99), "none")) for _ in range(400))
    assert 0 < seen < 400


def test_short_lists_are_looked_at_whole() -> None:
    assert all(warned(page(1, 2, 3, "none")) for _ in range(20))


def test_nothing_of_the_answer_is_lost() -> None:
    data = page(*range(100))
    answers.finished(Things, data, 71, "warn", "GET /things")
    assert data == page(*range(100))
