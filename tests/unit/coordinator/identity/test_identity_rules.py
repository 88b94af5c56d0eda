"""The one policy: every call has a rule that exists, every rule is used or belongs to a call not served yet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import coordinator
from coordinator.api.resources import all_resources
from coordinator.identity.rules import BASE, DEPRECATED, RULES

ROOT = Path(coordinator.__file__).parent
NO_RULE = {"site", "identity-versions", "identity-tokens", "identity-users", "identity-projects", "identity-roles"}
"""Resources some of whose calls every authenticated caller may make (their handlers look at the caller)."""


@pytest.mark.parametrize("resource", all_resources(), ids=lambda resource: resource.name)
def test_every_call_has_a_rule(resource):
    for route in resource.routes:
        if route.policy is not None:
            assert route.policy in RULES, route.label
        elif not route.public and resource.prefix == "/v3":
            assert resource.name in NO_RULE, route.label


def test_rules_asked_for_in_code_exist():
    asked = re.compile(r"\.(?:may|require|allows)\(\s*f?\"([^\"{]+)\"")
    for path in ROOT.rglob("*.py"):
        for rule in asked.findall(path.read_text()):
            assert rule in RULES, (path, rule)


def test_split_rules_lead_to_rules_that_exist():
    assert set(DEPRECATED) <= set(RULES)
    assert set(BASE) <= set(RULES)
