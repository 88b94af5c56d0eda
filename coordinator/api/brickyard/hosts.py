"""Hosts: list, show, enrol by a one-time token, keep new volumes away."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Row

from coordinator.api.brickyard.pages import PAGING, asked, next_marker, picked
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Time
from coordinator.api.route import Resource, get, post
from coordinator.enrolment.listener import EnrolmentListener
from coordinator.enrolment.service import TOKEN_LIFETIME_S, Enrolment
from coordinator.state import fleet, site_lists
from coordinator.state.tables.columns import utcnow

_SEEN = "brickyard:hosts:get"
_FIELDS = (
    "id", "enabled", "disabled_reason", "drained_at", "reachable", "reachable_since", "last_seen", "availability_zone",
    "keeps_images", "address", "control_port", "data_port", "created_at",
)  # fmt: skip
_POOL_FIELDS = (
    "id", "backend", "name", "driver", "total_bytes", "free_bytes", "provisioned_bytes", "max_over_subscription",
    "reserved_percent", "thin", "present", "disabled", "updated_at",
)  # fmt: skip


class PoolAnswer(Answer):
    id: str
    backend: str
    name: str
    driver: str
    total_bytes: int
    free_bytes: int
    provisioned_bytes: int
    max_over_subscription: float
    reserved_percent: int
    thin: bool
    present: bool
    disabled: bool
    updated_at: Time | None


class HostSummary(Answer):
    id: str
    enabled: bool
    disabled_reason: str | None
    drained_at: Time | None
    reachable: bool
    reachable_since: Time | None
    last_seen: Time | None
    availability_zone: str
    keeps_images: bool
    address: str
    control_port: int
    data_port: int | None
    created_at: Time


class HostAnswer(HostSummary):
    facts: dict[str, Any]
    pools: list[PoolAnswer]


class HostList(Answer):
    hosts: list[HostSummary]
    next_marker: str | None


class TokenRequest(Body):
    """`address`: where the host reaches this coordinator, default: where the caller did. `host` binds it to a name."""

    address: Annotated[str | None, Field(max_length=255, pattern=r"^[A-Za-z0-9_.:-]+$")] = None
    host: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")] = None
    lifetime_s: Annotated[int, Field(ge=60, le=7 * 86400)] = int(TOKEN_LIFETIME_S)


class TokenAnswer(Answer):
    """`token` is shown this once."""

    token: str
    address: str
    port: int
    expires_at: Time


class Disable(Body):
    reason: Annotated[str | None, Field(max_length=255)] = None


async def listed(call: Call) -> dict[str, Any]:
    page = asked(call, site_lists.BY_ID)
    rows = await call.services.db.read(lambda conn: site_lists.host_page(conn, page))
    return {
        "hosts": [picked(row, *_FIELDS) for row in rows],
        "next_marker": next_marker([row.id for row in rows], page),
    }


async def show(call: Call) -> dict[str, Any]:
    host_id = call.params["host_id"]

    def read(conn: Connection) -> tuple[Row[Any], Any]:
        return fleet.get(conn, host_id), fleet.pools_of(conn, host_id)

    row, pools = await call.services.db.read(read)
    return {
        **picked(row, *_FIELDS),
        "facts": row.facts or {},
        "pools": [picked(pool, *_POOL_FIELDS) for pool in pools],
    }


async def enrol_token(call: Call) -> dict[str, Any]:
    wanted = call.valid(TokenRequest)
    listener, enrolment = call.services.get(EnrolmentListener), call.services.get(Enrolment)
    address = wanted.address or call.request.url.host or "127.0.0.1"
    token = await enrolment.token(address, listener.port, lifetime_s=float(wanted.lifetime_s), host=wanted.host)
    expires = utcnow() + datetime.timedelta(seconds=wanted.lifetime_s)
    return {"token": token.line(), "address": address, "port": listener.port, "expires_at": expires}


async def disable(call: Call) -> dict[str, Any]:
    return await _set(call, enabled=False, reason=call.valid(Disable).reason)


async def enable(call: Call) -> dict[str, Any]:
    return await _set(call, enabled=True, reason=None)


async def _set(call: Call, *, enabled: bool, reason: str | None) -> dict[str, Any]:
    host_id = call.params["host_id"]
    await call.services.db.write(lambda conn: fleet.set_enabled(conn, host_id, enabled=enabled, reason=reason))
    return await show(call)


def resource() -> Resource:
    """The routes."""
    host: dict[str, Any] = {"answer": HostAnswer, "answer_key": "host"}
    return Resource(
        "hosts",
        "Hosts of the fleet.",
        (
            get("", listed, _SEEN, "List hosts.", answer=HostList, query=PAGING),
            post("/enrol-token", enrol_token, "brickyard:hosts:enrol", "A one-time token by which a host joins.",
                 body=TokenRequest, answer=TokenAnswer, status=201),
            get("/{host_id}", show, _SEEN, "Show a host with its pools and what it told of itself.", **host),
            post("/{host_id}/disable", disable, "brickyard:hosts:update", "Place no new volumes there.",
                 body=Disable, **host),
            post("/{host_id}/enable", enable, "brickyard:hosts:update", "Place volumes there again.", **host),
        ),
        prefix="/brickyard/v1/hosts",
    )  # fmt: skip
