"""Why a volume could not be placed, host by host."""

from __future__ import annotations

from agent.base.errors import Permanent


class NoPool(Permanent):
    code = "scheduler.no-pool"
    status = 409
    exit_code = 9
    sentence = "No pool fits this volume: {reasons}."
    hint = "See the pools with: openstack volume backend pool list; add space, or enrol another host."
