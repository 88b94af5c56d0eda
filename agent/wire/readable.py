"""Pools as a host tells them, each by itself: one that can not be understood spoils no other, nor its host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from agent.wire.results import Pool, pool_address

_MOST = 200


def pools(rows: Sequence[Any]) -> tuple[tuple[Pool, ...], dict[str, str]]:
    """Those that can be used; and of the others, by `BACKEND#POOL` or their number, what is wrong.

    Of a name that is told twice none is used: nobody knows which of them a job would find.
    """
    found, wrong = [], {}
    for number, row in enumerate(rows, 1):
        try:
            found.append(Pool.model_validate(row))
        except ValidationError as error:
            wrong[_called(row, number)] = _why(error)
    times = Counter((pool.backend, pool.name) for pool in found)
    wrong |= {pool_address(*name): "is told more than once" for name, count in times.items() if count > 1}
    return tuple(pool for pool in found if times[pool.backend, pool.name] == 1), wrong


def _called(row: Any, number: int) -> str:
    backend, name = (row.get("backend"), row.get("name")) if isinstance(row, Mapping) else (None, None)
    if isinstance(backend, str) and isinstance(name, str):
        return pool_address(backend, name)[:_MOST]
    return f"number {number}"


def _why(error: ValidationError) -> str:
    told = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in told[:3])[:_MOST]
