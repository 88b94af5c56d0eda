"""Running services: log levels by cinder's client, reports over the API and by signal, on a site of real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clients.livesite import LiveSite, live_site

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site() as made:
        made.people()
        yield made


def levels(site: LiveSite, *words: str) -> dict[tuple[str, str], dict[str, str]]:
    """By (binary, host)."""
    rows = json.loads(site.run("brickyard", "service", "log-level", *words, "--json"))
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        found.setdefault((row["binary"], row["host"].split(".")[0]), {})[row["logger"]] = row["level"]
    return found


def test_log_levels_of_one_agent_and_of_all(site: LiveSite) -> None:
    words = ("service-set-log", "DEBUG", "--binary", "cinder-volume", "--server", "host-b@files", "--prefix", "agent.")
    site.run("cinder", *words, version="3.32")
    shown = site.run("cinder", "service-get-log", "--binary", "cinder-volume", "--prefix", "agent.jobs", version="3.32")
    assert "DEBUG" in shown
    found = levels(site, "--prefix", "agent.jobs")
    assert "DEBUG" in set(found["cinder-volume", "host-b"].values())
    # A host that has logged nothing below it yet has no such logger.
    assert set(found.get(("cinder-volume", "host-a"), {}).values()) <= {"INFO"}
    site.run("cinder", "service-set-log", "warning", version="3.32")
    found = levels(site)
    assert {binary for binary, _ in found} == {"cinder-api", "cinder-volume"}
    assert set(found["cinder-volume", "host-a"].values()) <= {"WARNING", "INFO"}
    site.run("cinder", "service-set-log", "INFO", version="3.32")


@pytest.mark.parametrize(
    ("body", "status"),
    [({"level": "verbose"}, 400), ({"level": "INFO", "binary": "cinder-moon"}, 400), ({"level": None}, 400)],
)
def test_levels_and_binaries_that_there_are_not(site: LiveSite, body: dict[str, str], status: int) -> None:
    assert site.call("PUT", "/v3/os-services/set-log", json=body)[0] == status


def test_the_agreed_capabilities_are_true_or_false(site: LiveSite) -> None:
    volume = site.run("brickyard", "volume", "create", "--size", "1", "--wait", "-o", "value").strip()
    place = site.call("GET", f"/v3/volumes/{volume}")[1]["volume"]["os-vol-host-attr:host"].partition("#")[0]
    status, found = site.call("GET", f"/v3/capabilities/{place}")
    assert status == 200, found
    agreed = {"thin_provisioning", "compression", "qos", "replication_enabled"}
    assert agreed <= found["properties"].keys()
    for name, one in found["properties"].items():
        assert one["type"] == "boolean", name
        assert isinstance(one["default"], bool), name
        assert one["title"], name
    assert site.call("GET", f"/v3/capabilities/{place}", who="rita")[0] == 403


def test_others_may_not(site: LiveSite) -> None:
    assert site.call("PUT", "/v3/os-services/get-log", who="rita", json={})[0] == 403
    assert site.call("GET", "/brickyard/v1/state-report", who="rita")[0] == 403


def test_reports_of_the_coordinator_and_of_an_agent(site: LiveSite) -> None:
    coordinator = site.run("brickyard", "service", "report")
    assert "==== Tasks ====" in coordinator
    assert "coordinator.listen = '127.0.0.1'" in coordinator
    agent = site.run("brickyard", "service", "report", "host-b")
    assert "agent.host = 'host-b'" in agent
    assert site.call("GET", "/brickyard/v1/state-report?host=moon")[0] == 404
