"""Who may do what: oslo.policy rules, decided once per rule, caller and owner.

Without an operator's file only the rule language of oslo.policy is loaded; its enforcer (and with it oslo.config, a
tenth of a second) comes in with the file. Both give the same trees, which a test holds against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.base.log import get_logger
from coordinator.identity.context import Principal
from coordinator.identity.errors import PolicyInvalid
from coordinator.identity.rules import DEPRECATED, RULES, scopes_of

_log = get_logger(__name__)
_TARGET_KEY = re.compile(r"%\(([^)]+)\)s")
_REMOTE = re.compile(r"(?:^|[\s(])https?:")
_REMEMBERED = 8192


class Policy:
    """Decides. Made by `builtin()` or `from_file(path)`; holds a memory of verdicts, dropped when it is full.

    `scoped`: a token of the system does nothing to what belongs to projects, nor one of a project to the site.
    """

    def __init__(self, trees: Mapping[str, Any], target_keys: tuple[str, ...], *, scoped: bool = False) -> None:
        self.rules, self.scoped = trees, scoped
        self._keys = target_keys
        self._verdicts: dict[tuple[Any, ...], bool] = {}

    @classmethod
    def builtin(cls, *, scoped: bool = False) -> Policy:
        """The built-in rules alone."""
        from oslo_policy import _checks, _parser

        if _checks.extension_checks is None:
            # The extensions are the http(s) checks, which are refused here; looking for them loads `requests`.
            _checks.extension_checks = {}
        trees = {name: _parser.parse_rule(rule) for name, rule in RULES.items()}
        return cls(trees, _keys_of(RULES.values()), scoped=scoped)

    @classmethod
    def from_file(cls, path: Path, *, scoped: bool = False) -> Policy:
        """The built-in rules with those of the operator's YAML file over them; raises PolicyInvalid."""
        given = _read(path)
        known = {*RULES, *DEPRECATED.values()}
        for name in sorted(given.keys() - known):
            if not _is_helper(name, given):
                _log.warning("the policy file sets a rule that does not exist", path=str(path), rule=name)
        return cls(_enforced(path), _keys_of([*RULES.values(), *given.values()]), scoped=scoped)

    def take_over(self, other: Policy) -> None:
        """Decide as `other` from now on: the operator's file has changed."""
        self.rules, self._keys, self._verdicts = other.rules, other._keys, {}

    def allows(self, rule: str, principal: Principal, target: Mapping[str, Any] | None = None) -> bool:
        """Whether `principal` may do `rule` to `target` (default: something of his own); LookupError: no such rule."""
        if target is None:
            values: tuple[Any, ...] = (None,)
        else:
            values = tuple(target.get(key) for key in self._keys)
        key = (rule, principal, values)
        known = self._verdicts.get(key)
        if known is None:
            known = self._decide(rule, principal, target)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[key] = known
        return known

    def is_admin(self, principal: Principal) -> bool:
        """Whether rule `context_is_admin` holds."""
        return self.allows("context_is_admin", principal)

    def _decide(self, rule: str, principal: Principal, target: Mapping[str, Any] | None) -> bool:
        tree = self.rules.get(rule)
        if tree is None:
            raise LookupError(f"no policy rule {rule!r}")
        if self.scoped and ("system" if principal.system else "project") not in scopes_of(rule):
            return False
        credentials = principal.credentials()
        own = {"project_id": principal.project_id, "user_id": principal.user_id}
        if rule != "context_is_admin":
            credentials["is_admin"] = self.is_admin(principal)
        return bool(tree(dict(target) if target is not None else own, credentials, self, rule))


def _keys_of(rules: Any) -> tuple[str, ...]:
    return tuple(sorted({key for rule in rules for key in _TARGET_KEY.findall(rule)}))


def _is_helper(name: str, given: Mapping[str, str]) -> bool:
    """A rule that another rule of the file refers to is the operator's own building block."""
    return any(re.search(rf"\brule:{re.escape(name)}(?![\w:-])", rule) for rule in given.values())


def _read(path: Path) -> dict[str, str]:
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise PolicyInvalid(path=str(path), reason=error.strerror or "it can not be read") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyInvalid(path=str(path), reason=" ".join(str(error).split())) from None
    found = found if found is not None else {}
    if not isinstance(found, dict):
        raise PolicyInvalid(path=str(path), reason="it is not a mapping of rule names to rules")
    for name, rule in found.items():
        if not isinstance(name, str) or not isinstance(rule, str):
            raise PolicyInvalid(path=str(path), reason=f"rule {name!r} is not text")
        _checked(path, name, rule, {*found, *RULES})
    return found


def _checked(path: Path, name: str, rule: str, known: set[str]) -> None:
    """The parser of oslo.policy turns bad syntax into 'never'; here it is refused by name."""
    from oslo_policy import _checks, _parser

    if _REMOTE.search(rule):
        raise PolicyInvalid(path=str(path), reason=f"rule {name!r} asks a server over http, which is not supported")
    tree = _parser.parse_rule(rule)
    if isinstance(tree, _checks.FalseCheck) and rule.strip() != "!":
        raise PolicyInvalid(path=str(path), reason=f"rule {name!r} has bad syntax: {rule!r}")
    for other in re.findall(r"(?:^|[\s(])rule:([^\s()]+)", rule):
        if other not in known:
            raise PolicyInvalid(path=str(path), reason=f"rule {name!r} refers to {other!r}, which does not exist")


def _enforced(path: Path) -> Mapping[str, Any]:
    from oslo_config import cfg
    from oslo_policy import opts, policy

    conf = cfg.ConfigOpts()
    conf([], project="brickyard", default_config_files=[], default_config_dirs=[])
    opts._register(conf)
    conf.set_override("policy_dirs", [], group="oslo_policy")
    enforcer = policy.Enforcer(conf, policy_file=str(path.resolve()), use_conf=True)
    enforcer.suppress_deprecation_warnings = enforcer.suppress_default_change_warnings = True
    enforcer.register_defaults([_default(policy, name, rule) for name, rule in RULES.items()])
    enforcer.load_rules(force_reload=True)
    return dict(enforcer.rules)


def _default(policy: Any, name: str, rule: str) -> Any:
    old = DEPRECATED.get(name)
    if old is None:
        return policy.RuleDefault(name, rule)
    replaced = policy.DeprecatedRule(old, rule, deprecated_reason="It was split.", deprecated_since="0.1")
    return policy.RuleDefault(name, rule, deprecated_rule=replaced)
