"""What the commands of the matrix name: ids that are looked up, or made, when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.clients.livesite import LiveSite

_SERVER = "11111111-1111-4111-8111-111111111111"


def first(path: str, key: str, **equal: str) -> Callable[[LiveSite], str]:
    """The id of the first in a list that has these values."""

    def find(site: LiveSite) -> str:
        rows: list[dict[str, Any]] = site.call("GET", path)[1][key]
        for row in rows:
            if all(row.get(name) == value for name, value in equal.items()):
                return str(row["id"])
        raise LookupError(key)

    return find


def _backend(site: LiveSite) -> str:
    return str(site.call("GET", "/v3/scheduler-stats/get_pools")[1]["pools"][0]["name"]).partition("#")[0]


def _attachment(site: LiveSite) -> str:
    """One that is there; `openstack volume attachment create` itself asks a compute service for the server."""
    if not site.call("GET", "/v3/attachments")[1]["attachments"]:
        volume = first("/v3/volumes", "volumes", name="second")(site)
        body = {"attachment": {"volume_uuid": volume, "instance_uuid": _SERVER}}
        assert site.call("POST", "/v3/attachments", json=body)[0] == 200
    return first("/v3/attachments", "attachments")(site)


def _backend_pool(site: LiveSite) -> str:
    return str(site.call("GET", "/v3/scheduler-stats/get_pools")[1]["pools"][0]["name"])


def _offer(site: LiveSite) -> str:
    """One of a volume made for it; its key is remembered for `{offer_key}`."""
    volume = _made(site, "offered")
    made = site.call("POST", "/v3/volume-transfers", json={"transfer": {"volume_id": volume}})[1]["transfer"]
    _KEYS[made["id"]] = made["auth_key"]
    return str(made["id"])


def _offer_key(site: LiveSite) -> str:
    return list(_KEYS.values())[-1] if _KEYS else "none"


def _made(site: LiveSite, name: str) -> str:
    status, answer = site.call("POST", "/v3/volumes", json={"volume": {"size": 1, "name": name}})
    assert status == 202, answer
    site.settled()
    return str(answer["volume"]["id"])


def _image(site: LiveSite) -> str:
    return str(site.call("GET", "/image/v2/images")[1]["images"][0]["id"])


def _left(kind: str) -> Callable[[LiveSite], str]:
    """The name of what was let go of and lies on the pool still."""

    def find(site: LiveSite) -> str:
        path = f"/v3/manageable_{kind}?host={_backend_pool(site).replace('#', '%23')}"
        entries = site.call("GET", path)[1][f"manageable-{kind}"]
        for item in entries:
            if item["safe_to_manage"]:
                return str(item["reference"]["source-name"])
        raise LookupError(kind)

    return find


def _message(site: LiveSite) -> str:
    """Of a volume that fits nowhere."""
    if not site.call("GET", "/v3/messages")[1]["messages"]:
        quota = {"quota_set": {"gigabytes": -1}}
        site.call("PUT", f"/v3/os-quota-sets/{site.session().get_project_id()}", json=quota)
        vast = site.call("POST", "/v3/volumes", json={"volume": {"size": 900000, "name": "vast"}})[1]["volume"]["id"]
        site.settled()
        site.call("DELETE", f"/v3/volumes/{vast}")
        site.settled()
    return first("/v3/messages", "messages")(site)


_KEYS: dict[str, str] = {}
PLACES: dict[str, Callable[[LiveSite], str]] = {
    "backend": _backend,
    "project": lambda site: str(site.session().get_project_id()),
    "instance": lambda site: _SERVER,
    "qos": first("/v3/qos-specs", "qos_specs", name="fast"),
    "gold": first("/v3/types", "volume_types", name="gold"),
    "attachment": _attachment,
    "host": lambda site: _backend(site).partition("@")[0],
    "pool": _backend_pool,
    "second": first("/v3/volumes", "volumes", name="second"),
    "third": first("/v3/volumes", "volumes", name="third"),
    "fifth": lambda site: _made(site, "fifth"),
    "left": _left("snapshots"),
    "left_volume": _left("volumes"),
    "managed_snapshot": first("/v3/snapshots", "snapshots"),
    "offer": _offer,
    "offer_key": _offer_key,
    "image": _image,
    "message": _message,
    "anybodys": first("/v3/volume-transfers?all_tenants=True", "transfers", name="gift"),
    "transfer": first("/v3/volume-transfers", "transfers", name="gift"),
}
