"""JSON patches of images: what clients send, and whatever else may come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.images.errors import ImageInvalid
from coordinator.images.patch import apply


def _apply(*operations: Any, tags: list[str] | None = None, **properties: str) -> Any:
    return apply(list(operations), tags=tags or [], properties=properties)


def _op(op: str, path: str, *value: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **({"value": value[0]} if value else {})}


def test_fields_and_properties_are_told_apart() -> None:
    change = _apply(_op("replace", "/name", "new"), _op("add", "/os_distro", "debian"), _op("remove", "/old"), old="x")
    assert change.values == {"name": "new"}
    assert change.properties == {"os_distro": "debian"}


def test_pointers_are_unescaped() -> None:
    assert _apply(_op("add", "/a~1b~0c", "x")).properties == {"a/b~c": "x"}


def test_single_tags_and_all_tags() -> None:
    assert _apply(_op("add", "/tags/0", "a"), tags=["b"]).values["tags"] == ["a", "b"]
    assert _apply(_op("add", "/tags/-", "c"), tags=["b"]).values["tags"] == ["b", "c"]
    assert _apply(_op("remove", "/tags/1"), tags=["a", "b"]).values["tags"] == ["a"]
    assert _apply(_op("replace", "/tags/0", "z"), tags=["a"]).values["tags"] == ["z"]
    assert _apply(_op("replace", "/tags", ["q"]), tags=["a"]).values["tags"] == ["q"]
    assert "tags" not in _apply(_op("replace", "/name", "n"), tags=["a"]).values


@pytest.mark.parametrize(
    "operation",
    [
        "replace",
        _op("test", "/name", "x"),
        _op("replace", "/name"),
        _op("replace", "name", "x"),
        _op("replace", "/absent", "x"),
        _op("remove", "/absent"),
        _op("remove", "/visibility"),
        _op("replace", "/id", "x"),
        _op("add", "/owner", "x"),
        _op("add", "/locations/-", {"url": "file:///etc/passwd"}),
        _op("add", "/tags/7", "x"),
        _op("add", "/tags/-", 5),
        _op("remove", "/tags/-"),
        _op("add", "/x/y", "z"),
    ],
)
def test_what_can_not_be_changed_is_refused(operation: Any) -> None:
    with pytest.raises(ImageInvalid):
        _apply(operation)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "replace", "remove", "move"]), "path": st.sampled_from(
        ["/name", "/tags", "/tags/0", "/tags/-", "/min_disk", "/prop", "/status", "", "/", "//", "/tags/x/y"]
    ) | st.text(max_size=6)},
    optional={"value": _JSON},
)  # fmt: skip


@given(st.lists(_OPERATION | _JSON, max_size=6) | _JSON)
def test_any_patch_is_applied_or_refused_with_a_sentence(operations: Any) -> None:
    try:
        change = apply(operations, tags=["t"], properties={"prop": "1"})
    except ImageInvalid:
        return
    assert all(isinstance(value, str) for value in change.properties.values())
    assert all(isinstance(tag, str) for tag in change.values.get("tags", []))
