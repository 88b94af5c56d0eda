"""Why nothing fits, in words: each host once, with the first rule that each of its pools failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_HOSTS, _POOLS = 20, 5


def told(refused: Iterable[tuple[str, str, str]]) -> str:
    """One sentence of (host, pool, reason): twenty hosts by name, of the others how many failed which rule."""
    hosts: dict[str, list[tuple[str, str]]] = {}
    for host, pool, reason in refused:
        hosts.setdefault(host, []).append((pool, reason))
    named = [_of_host(host, pools) for host, pools in list(hosts.items())[:_HOSTS]]
    others = list(hosts.values())[_HOSTS:]
    if others:
        rules = Counter(_rule(pools[0][1]) for pools in others)
        named.append(f"and {len(others)} more ({', '.join(f'{count} {rule}' for rule, count in rules.most_common())})")
    return "; ".join(named)


def _of_host(host: str, pools: list[tuple[str, str]]) -> str:
    if len(pools) > 1 and len({reason for _, reason in pools}) == 1:
        return f"{host} ({len(pools)} pools) {pools[0][1]}"
    more = f", and {len(pools) - _POOLS} pools more" if len(pools) > _POOLS else ""
    return ", ".join(f"{pool} {reason}" for pool, reason in pools[:_POOLS]) + more


def _rule(reason: str) -> str:
    """The filter's name, or what is said of a host that was not asked."""
    head, _, rule = reason.rpartition("[")
    return rule.rstrip("]") if head else reason.partition(" (")[0]
