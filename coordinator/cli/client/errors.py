"""What a call can come back with, each with its exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent.base.errors import BrickyardError, NotFound, Permanent, Remote, Temporary


class NoCredentials(Permanent):
    code = "cli.no-credentials"
    status = 401
    exit_code = 3
    sentence = "It is not said which site to talk to, or as whom: {missing} is not set."
    hint = "Source the site's openrc (`brickyard dev` writes STATE_DIR/openrc), or name it with --openrc FILE."


class Unreachable(Temporary):
    code = "cli.unreachable"
    exit_code = 7
    sentence = "The API at {address} does not answer: {reason}."
    hint = "Check that the coordinator runs there, and that OS_AUTH_URL names it."


class NotTrusted(Permanent):
    """The certificate of the API is by nobody that we trust, or for another name."""

    code = "cli.not-trusted"
    exit_code = 7
    sentence = "The certificate of the API at {address} is not trusted: {reason}."
    hint = "Name the file of the site's CA in OS_CACERT, and the host in OS_AUTH_URL as it stands in the certificate."


class NotTheApi(Permanent):
    code = "cli.not-the-api"
    exit_code = 7
    sentence = "What answers at {address} is not this API: {reason}."
    hint = "Check OS_AUTH_URL, and proxies on the way."


class NoSuch(NotFound):
    """No thing of that name or id among those that the caller sees."""

    code = "cli.no-such"
    sentence = "There is no {noun} {name}."
    hint = "`brickyard {noun} list` shows those there are."


class Ambiguous(Permanent):
    code = "cli.ambiguous"
    exit_code = 5
    sentence = "{count} {noun}s are named {name}."
    hint = "Give the id of the one that is meant: {ids}."


class NotAttached(NotFound):
    code = "cli.not-attached"
    sentence = "The volume {name} is not attached to {host}."
    hint = "`brickyard attachment list` shows the attachments."


class NotQuiet(Temporary):
    code = "cli.not-quiet"
    exit_code = 7
    sentence = "Host {host} is not quiet after {seconds} s: {still}."
    hint = "It stays drained. Wait on with: brickyard host drain {host} --wait."


class EnabledMeanwhile(Permanent):
    code = "cli.enabled-meanwhile"
    exit_code = 5
    sentence = "Host {host} was enabled while it was waited for; work may begin there."
    hint = "See who did it, then drain it again: brickyard host drain {host} --wait."


class Refused(Remote):
    """The API refused, in its own words."""

    exit_code = 1

    def to_body(self) -> dict[str, Any]:
        """What the API said, without the form in which it is kept here."""
        return {**super().to_body(), "context": self.context["body"].get("context", {})}


class RefusedValue(Refused):
    exit_code = 2


class RefusedCaller(Refused):
    exit_code = 3


class RefusedMissing(Refused):
    exit_code = 4


class RefusedState(Refused):
    exit_code = 5


class RefusedLater(Refused):
    exit_code = 7


class RefusedQuota(Refused):
    exit_code = 8


class RefusedPlace(Refused):
    exit_code = 9


_BY_STATUS: dict[int, type[Refused]] = {
    400: RefusedValue, 401: RefusedCaller, 403: RefusedCaller, 404: RefusedMissing, 409: RefusedState,
    413: RefusedQuota, 429: RefusedCaller, 503: RefusedLater, 504: RefusedLater,
}  # fmt: skip
_BY_CODE: dict[str, type[Refused]] = {
    "scheduler.no-pool": RefusedPlace, "scheduler.pools-away": RefusedPlace, "operation.cancelled": RefusedLater,
    "state.transition-refused": RefusedState,
}  # fmt: skip


def refused(status: int, raw: bytes) -> BrickyardError:
    """The error of an answer, from whichever form its path uses."""
    try:
        document = json.loads(raw)
    except ValueError:
        document = {}
    body: dict[str, Any] = {"status": status, "code": f"http-{status}", "message": f"The API answered {status}."}
    inner = next(iter(document.values()), None) if isinstance(document, dict) and len(document) == 1 else document
    if isinstance(inner, dict):
        code = inner.get("code")
        body |= {key: inner[key] for key in ("message", "hint", "context") if key in inner}
        body["code"] = code if isinstance(code, str) else body["code"]
    return of_body(body)


def of_body(body: Mapping[str, Any]) -> BrickyardError:
    """The error that another process has told (`to_body()`), with the exit code of its class."""
    code = str(body.get("code"))
    otherwise = RefusedQuota if code.startswith("quota.") else Refused
    kind = _BY_CODE.get(code) or _BY_STATUS.get(int(body.get("status") or 500), otherwise)
    return kind(body=dict(body))
