"""`[backend_defaults]`: what all back ends have in common, said once. A back end's own table wins, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Optional, get_args

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from agent.backends.config import BackendConfig
from agent.base.config import Section

_OF_EACH = frozenset({"driver", "pool", "pools", "cluster_name"})
"""What says which back end it is, beside the keys that each must have (its place)."""
_WORDS = "capabilities"


def _models() -> dict[str, type[BaseModel]]:
    """The model of each driver."""
    tagged = (get_args(one) for one in get_args(get_args(BackendConfig)[0]))
    return {tag.tag: model for model, tag in tagged}


def _unset(field: FieldInfo) -> FieldInfo:
    made = copy(field)
    made.default, made.default_factory = None, None
    return made


MODELS = _models()
_KEYS = {
    name: field
    for model in MODELS.values()
    for name, field in model.model_fields.items()
    if name not in _OF_EACH and not field.is_required()
}
BackendDefaults: Any = create_model(
    "BackendDefaults",
    __base__=Section,
    __doc__="`[backend_defaults]`",
    **{name: (Optional[field.annotation], _unset(field)) for name, field in _KEYS.items()},  # type: ignore[call-overload]  # noqa: UP045
)
"""Every key that a back end may have or not; None where nothing was said."""


def with_defaults(tables: Any, said: Mapping[str, Any]) -> Any:
    """The tables of back ends, each with what is said for all and its driver knows. Words of both are kept."""
    if not isinstance(tables, Mapping) or not said:
        return tables
    return {name: _one(table, said) if isinstance(table, Mapping) else table for name, table in tables.items()}


def _one(table: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    model = MODELS.get(str(table.get("driver", "file")))
    known = {name: value for name, value in said.items() if model is not None and name in model.model_fields}
    own = table.get(_WORDS, {})
    words = {_WORDS: {**known[_WORDS], **own}} if _WORDS in known and isinstance(own, Mapping) else {}
    return {**known, **table, **words}
