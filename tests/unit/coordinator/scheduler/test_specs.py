"""Extra specs against capabilities, by the operators that operators' types are full of."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.scheduler.specs import lacking, matches


@pytest.mark.parametrize(("has", "wanted", "answer"), [
    (10, "= 5", True), (4, "= 5", False), (5, "== 5", True), ("5", "== 5.0", True), (6, "!= 5", True),
    (6, ">= 6", True), (7, "<= 6", False), ("x", ">= 6", False), (None, ">= 6", False), (6, ">=", False),
    ("ssd", "s== SSD", True), ("ssd", "s!= hdd", True), ("a", "s< b", True), ("b", "s>= b", True),
    (True, "<is> True", True), ("False", "<is> false", True), (None, "<is> False", True), (None, "<is> True", False),
    (True, "<is> True>", False), ("True", "<is> True", True),
    ("fast ssd", "<in> ssd", True), ("fast ssd", "<all-in> ssd fast", True), ("fast", "<all-in> ssd fast", False),
    ("b", "<or> a <or> b", True), ("c", "<or> a <or> b", False),
    ("SSD", "ssd", True), (True, "true", True), (False, "true", False), (3, "3", True),
    (["iscsi", "local"], "iscsi", True), (["local"], "<or> iscsi <or> fc", False),
])  # fmt: skip
def test_operators(has: Any, wanted: str, answer: bool) -> None:
    assert matches(has, wanted) is answer


def test_scopes() -> None:
    told = {"media": "ssd", "deep": {"er": {"yes": 1}}, "multiattach": False}
    assert (
        lacking(told, {"media": "ssd", "capabilities:media": "ssd", "qos:iops": "5", "provisioning:type": "thin"})
        is None
    )
    assert lacking(told, {"capabilities:deep:er:yes": "== 1"}) is None
    assert lacking(told, {"capabilities:deep:er:no": "== 1"}) == "capabilities:deep:er:no=== 1"
    assert lacking(told, {"media": "hdd"}) == "media=hdd"
    assert lacking(told, {"multiattach": "<is> True"}) == "multiattach=<is> True"
    assert lacking(told, {"multiattach": "<is> False"}) is None
