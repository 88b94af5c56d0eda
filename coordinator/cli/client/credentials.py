"""Which site, and as whom: the `OS_*` variables, or a file that exports them. Nothing is written anywhere."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.cli.client.errors import NoCredentials


@dataclass(frozen=True, slots=True)
class Credentials:
    """`kind` is `password`, `http_basic` or `none`; `url` the identity service, or the API where `kind` needs none."""

    kind: str
    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    project: Mapping[str, str] = field(default_factory=dict)
    user_domain: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None


def read(environment: Mapping[str, str], openrc: Path | None = None) -> Credentials:
    """Raises `NoCredentials` naming the first variable that is missing."""
    values = {**environment, **exports(openrc.read_text())} if openrc is not None else environment
    kind = values.get("OS_AUTH_TYPE", "password").removeprefix("v3")
    kind = kind if kind in {"none", "http_basic"} else "password"
    url = values.get("OS_AUTH_URL", "") if kind == "password" else values.get("OS_ENDPOINT", "")
    needed = {"OS_AUTH_URL" if kind == "password" else "OS_ENDPOINT": url}
    if kind != "none":
        needed |= {name: values.get(name, "") for name in ("OS_USERNAME", "OS_PASSWORD")}
    for name, value in needed.items():
        if not value:
            raise NoCredentials(missing=name)
    return Credentials(
        kind=kind, url=url.rstrip("/"), username=values.get("OS_USERNAME", ""), password=values.get("OS_PASSWORD", ""),
        project=_named(values, "OS_PROJECT", "OS_TENANT"), user_domain=_named(values, "OS_USER_DOMAIN"),
        ca_file=values.get("OS_CACERT") or None,
    )  # fmt: skip


def scope(values: Mapping[str, str], domain: Mapping[str, str]) -> dict[str, object]:
    """A project as the identity service wants it named."""
    if "id" in values:
        return {"id": values["id"]}
    return {"name": values["name"], "domain": dict(domain) or {"id": "default"}}


def exports(text: str) -> dict[str, str]:
    """The variables that a file of `export NAME=VALUE` lines sets; other lines are passed over, nothing is run."""
    found = {}
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for word in words[1:] if words[:1] == ["export"] else words[:1]:
            name, equals, value = word.partition("=")
            if equals and name.isidentifier():
                found[name] = value
    return found


def _named(values: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    for prefix in prefixes:
        for key in ("id", "name"):
            value = values.get(f"{prefix}_{key.upper()}")
            if value:
                return {key: value}
    return {}
