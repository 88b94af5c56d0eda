"""gophercloud's calls, as it sends them, against a site of real processes: statuses and keys that it does not take for
good are errors to those who build on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.gophercloud import STEPS, Step
from tests.clients.livesite import LiveSite, live_site
from tests.clients.places import PLACES

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(1800)]
GENERATIONS = {"gophercloud/v1.14.1": "volumev3", "gophercloud/v2.8.0": "block-storage"}


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    with live_site(agents=1) as site:
        yield site


def filled(part: Any, known: dict[str, str], site: LiveSite) -> Any:
    """With ids in their places; those of the site are looked up when their turn comes."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        return known[name] if name in known else LOOKED_UP[name](site)

    if isinstance(part, dict):
        return {key: filled(item, known, site) for key, item in part.items()}
    if isinstance(part, list):
        return [filled(item, known, site) for item in part]
    return re.sub(r"\{(\w+)\}", value, part) if isinstance(part, str) else part


LOOKED_UP = {**PLACES, "left": PLACES["left_volume"]}


def endpoint(site: LiveSite, kind: str) -> str:
    """What the catalog has for this type; the older generation knows no other than `volumev3`."""
    access = site.session().auth.get_access(site.session())
    return str(access.service_catalog.url_for(service_type=kind, interface="public")).rstrip("/") + "/"


def sent(site: LiveSite, step: Step, agent: str, known: dict[str, str]) -> Any:
    kind = GENERATIONS[agent]
    headers = {"Accept": "application/json", "User-Agent": agent}
    if step.version is not None:
        headers["OpenStack-API-Version"] = f"{kind} {step.version}"
    more = {}
    if step.body is not None:
        more["json"] = filled(step.body, known, site)
    url = endpoint(site, kind) + filled(step.path, known, site)
    return site.session().request(url, step.method, headers=headers, raise_exc=False, **more)


def remember(step: Step, answer: Any, known: dict[str, str]) -> None:
    kept, _, name = (step.keep or "").partition(" as ")
    if not kept:
        return
    made = answer.json()[kept]
    known[name or kept] = str(made["id"])
    known |= {key: made[of] for key, of in (("auth_key", "auth_key"), ("image", "image_id")) if of in made}


@pytest.mark.parametrize("agent", GENERATIONS)
def test_every_call_is_taken_for_good(site: LiveSite, agent: str) -> None:
    known = {"project": str(site.session().get_project_id())}
    for step in STEPS:
        answer = sent(site, step, agent, known)
        assert answer.status_code in step.good, (step.name, answer.status_code, answer.text)
        if step.key is not None:
            assert step.key in answer.json(), (step.name, answer.text)
        if step.version is not None:
            assert answer.headers["OpenStack-API-Version"] == f"volume {step.version}", step.name
        remember(step, answer, known)
        if step.settle:
            site.settled()
    left = site.call("GET", "/v3/volumes/detail")[1]["volumes"]
    assert sorted(volume["name"] for volume in left) == ["hinted"]
    site.call("DELETE", f"/v3/volumes/{left[0]['id']}")
    site.settled()


def test_pages_are_followed_by_their_links(site: LiveSite) -> None:
    """`<collection>_links` with `rel` next, as `ExtractNextURL` reads them."""
    for number in range(3):
        made = site.call("POST", "/v3/volumes", json={"volume": {"size": 1, "name": f"page{number}"}})
        assert made[0] == 202
    site.settled()
    url, seen = endpoint(site, "volumev3") + "volumes/detail?limit=2", []
    while url:
        page = site.session().request(url, "GET").json()
        seen += [volume["name"] for volume in page["volumes"]]
        url = next((link["href"] for link in page.get("volumes_links", []) if link["rel"] == "next"), "")
    assert seen == ["page2", "page1", "page0"]
