"""The API below a path of a web server, before several coordinators: real nginx, real client, one of them killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support import postgres
from tests.support.nginx import BINARY, nginx
from tests.support.site import Site, started

pytestmark = [
    pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(300),
    pytest.mark.skipif(BINARY is None, reason="nginx is not installed"),
]  # fmt: skip
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Site, str]]:
    sets = ('api.trusted_proxies=["127.0.0.1"]',)
    site = Site(agents=1, sets=sets, database=postgres.cluster().database(), coordinators=2)
    with started(site), nginx(site.folder, [part.api.port for part in site.coordinators]) as proxy:
        yield site, proxy.url


def cinder(site: Site, url: str, *words: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")} | {
        "OS_AUTH_URL": f"{url}/identity/v3", "OS_USERNAME": "admin", "OS_PASSWORD": site.api.password(),
        "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_VOLUME_API_VERSION": "3.71",
    }  # fmt: skip
    done = subprocess.run([BIN / "cinder", *words], env=env, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def token(site: Site, url: str) -> tuple[str, dict[str, str]]:
    """The address of the catalog's block storage, and headers for it."""
    user = {"name": "admin", "password": site.api.password(), "domain": {"name": "Default"}}
    scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
    auth = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    answer = requests.post(f"{url}/identity/v3/auth/tokens", json=auth, timeout=60)
    assert answer.status_code == 201, answer.text
    catalog = {item["type"]: item["endpoints"][0]["url"] for item in answer.json()["token"]["catalog"]}
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"], "OpenStack-API-Version": "volume 3.71"}
    return catalog["block-storage"], headers


def test_the_clients_work_and_links_lead_back_through_it(behind: tuple[Site, str]) -> None:
    site, url = behind
    for name in ("one", "two", "three"):
        cinder(site, url, "create", "--name", name, "--poll", "1")
    assert all(name in cinder(site, url, "list") for name in ("one", "two", "three"))
    versions = requests.get(f"{url}/", timeout=60)
    assert versions.status_code == 300
    assert versions.json()["versions"][0]["links"][0]["href"] == f"{url}/v3/"
    catalog, headers = token(site, url)
    assert catalog.startswith(f"{url}/v3")
    seen, link = [], f"{catalog}/volumes?limit=1"
    while link:
        assert link.startswith(url)
        page = requests.get(link, headers=headers, timeout=60).json()
        seen += [volume["name"] for volume in page["volumes"]]
        link = next((item["href"] for item in page.get("volumes_links", ()) if item["rel"] == "next"), "")
    assert sorted(seen) == ["one", "three", "two"]
    cinder(site, url, "delete", "one", "two", "three")
    site.api.settle()
    site.clean()


def test_one_killed_in_the_middle_of_requests_leaves_nothing_half_done(behind: tuple[Site, str]) -> None:
    site, url = behind
    catalog, headers = token(site, url)

    def create(number: int) -> tuple[int, str]:
        """A request that was cut off may have been accepted or not; only one that was answered tells."""
        body = {"volume": {"size": 1, "name": f"v{number}"}}
        answer = requests.post(f"{catalog}/volumes", json=body, headers=headers, timeout=120)
        return answer.status_code, answer.json()["volume"]["id"] if answer.status_code == 202 else ""

    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(create, number) for number in range(40)]
        first[4].result()
        site.others[0].kill()
        told = [each.result() for each in first]
        told += list(pool.map(create, range(40, 60)))
    assert {status for status, _ in told} <= {202, 502, 504}
    assert {status for status, _ in told[40:]} == {202}
    site.api.settle(90)
    found = {volume["id"]: volume["status"] for volume in site.api.volumes()}
    assert {volume for status, volume in told if status == 202} <= found.keys()
    assert set(found.values()) == {"available"}, json.dumps(found)
    for volume in found:
        site.api.delete(f"/v3/volumes/{volume}")
    site.api.settle()
    site.restart(site.others[0].name)
    site.others[0].heard("up")
    site.clean()
