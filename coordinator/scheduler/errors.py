"""Why a volume could not be placed, host by host."""

from __future__ import annotations

from agent.base.errors import Invalid, Permanent


class NoPool(Permanent):
    code = "scheduler.no-pool"
    status = 409
    exit_code = 9
    sentence = "No pool fits this volume: {reasons}."
    hint = "See the pools with: openstack volume backend pool list; add space, or enrol another host."


class PoolsAway(NoPool):
    """Raised while a pool that would fit lies on a host that does not answer just now."""

    code = "scheduler.pools-away"
    retry_after = 1.0
    hint = "See the hosts with: brickyard host list; the volume is placed as soon as one of them answers."


class BadExpression(Invalid):
    code = "scheduler.bad-expression"
    sentence = "The expression {expression!r} can not be evaluated: {reason}."
    hint = "Correct filter_function or goodness_function of the back end; the how-to on placement shows the language."


class BadPlugin(Invalid):
    code = "scheduler.bad-plugin"
    sentence = "The {noun} {name} of package {package} can not be loaded: {reason}."
    hint = "Take it out of scheduler.filters or weighers, or mend its package in the coordinator's environment."
