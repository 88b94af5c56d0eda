"""All coordinators of a site count alike: how is noted in the state, and one that would differ does not start."""

from __future__ import annotations

from sqlalchemy import Connection, select

from agent.base.errors import Permanent
from coordinator.quota import limits, tree
from coordinator.quota.settings import QuotaSettings
from coordinator.state import site, usage
from coordinator.state.locks import hold_name
from coordinator.state.tables.volumes import volumes
from coordinator.state.usage import Rules

DRIVER, NO_SNAPSHOTS, NESTED = "quota_driver", "no_snapshot_gb_quota", "quota_nested"
_NOTED = ((DRIVER, "driver"), (NO_SNAPSHOTS, "no_snapshot_gb_quota"), (NESTED, "nested"))
_SHIPPED = QuotaSettings()


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
    """How the site counts, as its state says; before anything is noted, as shipped."""
    driver, without, nested = (site.value(conn, name) for name, _ in _NOTED)
    said = {"driver": driver or _SHIPPED.driver, "no_snapshot_gb_quota": without == "true", "nested": nested == "true"}
    return QuotaSettings.model_validate(said)


def check(conn: Connection, settings: QuotaSettings) -> None:
    """Raise RulesDiffer unless the state says the same. A new site takes what its first coordinator has configured."""
    hold_name(conn, "quota-rules")
    if site.value(conn, DRIVER) is None and conn.execute(select(volumes.c.id).limit(1)).first() is None:
        change(conn, settings)
        return
    present = noted(conn)
    for _, key in _NOTED:
        if getattr(settings, key) != getattr(present, key):
            raise RulesDiffer(key=key, configured=_word(getattr(settings, key)), noted=_word(getattr(present, key)))


def change(conn: Connection, settings: QuotaSettings) -> list[str]:
    """Count by these settings from now on, in the caller's write; returns what has changed, in words.

    Raises HierarchyUnknown or AlreadyBeyond where quotas can not be shared out in the tree of projects.
    """
    hold_name(conn, "quota-rules")
    present, told = noted(conn), []
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
