"""Policy: personas, the operator's file, and the same verdicts with and without the enforcer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from coordinator.identity.context import Principal, expanded
from coordinator.identity.errors import PolicyInvalid
from coordinator.identity.policy import Policy
from coordinator.identity.rules import RULES

PERSONAS = {
    role: Principal(role, role, "p1", "p1", expanded(frozenset({role})))
    for role in ("admin", "member", "reader", "service", "nothing")
}
CINDERS = Path(__file__).with_name("cinder_policy.yaml")
STRICTER = {"snapshot_extension:snapshot_actions:update_snapshot_status"}
"""What a host says of a snapshot is not for members to say."""
LATER = ("backup:", "group:")
OWN, FOREIGN = {"project_id": "p1", "user_id": "x"}, {"project_id": "p2", "user_id": "y"}


@pytest.mark.parametrize(
    ("rule", "may_own", "may_foreign"),
    [
        ("volume:get", {"admin", "member", "reader"}, {"admin"}),
        ("volume:create", {"admin", "member"}, {"admin"}),
        ("volume_extension:type_create", {"admin"}, {"admin"}),
        ("admin_or_owner", {"admin", "member", "reader", "service", "nothing"}, {"admin"}),
    ],
)
def test_personas(rule, may_own, may_foreign):
    policy = Policy.builtin()
    assert {name for name, who in PERSONAS.items() if policy.allows(rule, who, OWN)} == may_own
    assert {name for name, who in PERSONAS.items() if policy.allows(rule, who, FOREIGN)} == may_foreign


def test_light_and_full_agree(tmp_path):
    empty = tmp_path / "policy.yaml"
    empty.write_text("")
    light, full = Policy.builtin(), Policy.from_file(empty)
    for rule in RULES:
        for who in PERSONAS.values():
            for target in (None, OWN, FOREIGN):
                assert light.allows(rule, who, target) == full.allows(rule, who, target), (rule, who.user_id)


def test_an_operators_file_wins_and_old_names_have_effect(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        '"volume:create": "role:admin"\n'
        '"volume_extension:volume_image_metadata": "role:nothing"\n'
        '"mine": "role:reader and user_id:%(user_id)s"\n'
        '"volume:get": "rule:mine or rule:admin_api"\n'
        '"context_is_admin": "role:boss"\n'
    )
    policy = Policy.from_file(path)
    assert not policy.allows("volume:create", PERSONAS["member"])
    assert policy.allows("volume:create", PERSONAS["admin"])
    assert policy.allows("volume_extension:volume_image_metadata:set", PERSONAS["nothing"])
    assert policy.allows("volume:get", PERSONAS["reader"], {"project_id": "p2", "user_id": "reader"})
    assert not policy.allows("volume:get", PERSONAS["reader"], {"project_id": "p1", "user_id": "else"})
    assert not policy.is_admin(PERSONAS["admin"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("volume:create: [a", "line"),
        ("- a\n- b\n", "not a mapping"),
        ('"volume:create": 7\n', "not text"),
        ('"volume:create": "role:admin and ("\n', "bad syntax"),
        ('"volume:create": "rule:nowhere"\n', "nowhere"),
        ('"volume:create": "http://server/%(x)s"\n', "http"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, said):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(PolicyInvalid) as caught:
        Policy.from_file(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_file_of_a_cinder_is_taken_whole_and_changes_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        theirs = Policy.from_file(CINDERS)
    assert "does not exist" not in caplog.text
    ours = Policy.builtin()
    for rule in yaml.safe_load(CINDERS.read_text()):
        for name, who in PERSONAS.items():
            if name == "service" or rule in STRICTER or rule.startswith(LATER):
                continue
            for target in (OWN, FOREIGN):
                assert ours.allows(rule, who, target) == theirs.allows(rule, who, target), (rule, name, target)


def test_what_cinder_refers_to_by_name_can_be_set_for_all_rules_at_once(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text('"xena_system_admin_or_project_member": "role:worker"\n"volume:get": "rule:system_admin_only"\n')
    policy = Policy.from_file(path)
    assert not policy.allows("volume:create", PERSONAS["member"], OWN)
    assert policy.allows("volume:create", Principal("w", "w", "p1", "p1", frozenset({"worker"})), OWN)
    assert not policy.allows("volume:get", PERSONAS["admin"], OWN)
    system = Principal("s", "s", None, None, expanded(frozenset({"admin"})), system=True)
    assert policy.allows("volume:get", system, OWN)


def test_names_of_the_first_release_have_effect_still(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        '"volume_extension:volume_type_access:add_project_access": "role:nothing"\n'
        '"volume_extension:volume_admin_actions:extend_volume_complete": "role:nothing"\n'
    )
    policy = Policy.from_file(path)
    for rule in ("volume_type_access:addProjectAccess", "volume_admin_actions:extend_volume_completion"):
        assert policy.allows(f"volume_extension:{rule}", PERSONAS["nothing"], OWN), rule
    assert not policy.allows("volume_extension:volume_type_access:removeProjectAccess", PERSONAS["nothing"], OWN)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PolicyInvalid):
        Policy.from_file(tmp_path / "none.yaml")


def test_unknown_names_are_warned_of(tmp_path, caplog):
    path = tmp_path / "policy.yaml"
    path.write_text('"volume:craete": "role:admin"\n')
    with caplog.at_level(logging.WARNING):
        Policy.from_file(path)
    assert "volume:craete" in caplog.text


def test_an_unknown_rule_is_a_defect():
    with pytest.raises(LookupError):
        Policy.builtin().allows("volume:fly", PERSONAS["admin"])


def test_scopes_are_kept_apart_only_where_enforced():
    system = Principal("s", "s", None, None, expanded(frozenset({"admin"})), system=True)
    loose, strict = Policy.builtin(), Policy.builtin(scoped=True)
    for rule, who, enforced in (
        ("volume_extension:services:index", system, True),
        ("volume_extension:services:index", PERSONAS["admin"], False),
        ("volume:get", system, False),
        ("volume:force_delete", PERSONAS["admin"], True),
        ("volume_extension:type_get", system, True),
        ("context_is_admin", system, True),
    ):
        assert loose.allows(rule, who, OWN)
        assert strict.allows(rule, who, OWN) == enforced, rule
