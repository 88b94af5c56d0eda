"""All coordinators of a site count alike: how is noted in the state, and one that would differ does not start."""

from __future__ import annotations

from sqlalchemy import Connection, select

from agent.base.errors import Permanent
from coordinator.quota import limits, tree
from coordinator.quota.settings import QuotaSettings
from coordinator.state import site, usage
from coordinator.state.locks import beside_others, hold_name
from coordinator.state.tables.volumes import volumes
from coordinator.state.usage import Rules

DRIVER, NO_SNAPSHOTS, NESTED = "quota_driver", "no_snapshot_gb_quota", "quota_nested"
_NOTED = ((DRIVER, "driver"), (NO_SNAPSHOTS, "no_snapshot_gb_quota"), (NESTED, "nested"))
_FIRST = "dynamic"
"""How sites counted before it was noted."""


class RulesDiffer(Permanent):
    code = "state.quota-rules-differ"
    exit_code = 6
    sentence = "quota.{key} is {configured} in the configuration, but this site counts by {noted}."
    hint = (
        "Set it back; or stop all coordinators of the site, set it in the configuration of each, and run: "
        "brickyard-coordinator quota change."
    )


def rules_of(settings: QuotaSettings) -> Rules:
    """What the configuration means for counting."""
    return Rules(kept=settings.driver == "stored", snapshots_take_space=not settings.no_snapshot_gb_quota,
                 nested=settings.nested)  # fmt: skip


def noted(conn: Connection) -> QuotaSettings:
    """How the site counts, as its state says; `driver` is never None."""
    driver, without, nested = (site.value(conn, name) for name, _ in _NOTED)
    said = {"driver": driver or _FIRST, "no_snapshot_gb_quota": without == "true", "nested": nested == "true"}
    return QuotaSettings.model_validate(said)


def check(conn: Connection, settings: QuotaSettings) -> QuotaSettings:
    """How the site counts. Raise RulesDiffer unless it is what is configured, where something is.

    A new site takes what its first coordinator has configured.
    """
    hold_name(conn, "quota-rules")
    if site.value(conn, DRIVER) is None and conn.execute(select(volumes.c.id).limit(1)).first() is None:
        fresh = "dynamic" if beside_others(conn) else "stored"
        change(conn, settings.model_copy(update={"driver": settings.driver or fresh}))
        return noted(conn)
    present = noted(conn)
    for _, key in _NOTED:
        if getattr(settings, key) not in {None, getattr(present, key)}:
            raise RulesDiffer(key=key, configured=_word(getattr(settings, key)), noted=_word(getattr(present, key)))
    return present


def change(conn: Connection, settings: QuotaSettings) -> list[str]:
    """Count by these settings from now on, in the caller's write; returns what has changed, in words.

    Raises HierarchyUnknown or AlreadyBeyond where quotas can not be shared out in the tree of projects.
    """
    hold_name(conn, "quota-rules")
    present, told = noted(conn), []
    settings = settings.model_copy(update={"driver": settings.driver or present.driver})
    for name, key in _NOTED:
        was, now = _word(getattr(present, key)), _word(getattr(settings, key))
        if site.value(conn, name) != now:
            site.put(conn, name, now)
        if was != now:
            told.append(f"quota.{key}: {was} -> {now}")
    if settings.driver != present.driver:
        if settings.driver == "stored":
            usage.recount(conn)
        else:
            usage.forget(conn)
    if settings.nested:
        tree.check_all(conn, limits.defaults(conn))
    return told


def _word(value: object) -> str:
    return str(value).lower()
