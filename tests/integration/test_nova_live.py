"""What Nova does with servers and their volumes, call by call, on a site of real processes that knows its Nova."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.livesite import PASSWORD, LiveSite, live_site
from tests.support.nova import PASSWORD as NOVAS_PASSWORD
from tests.support.nova import FakeNova, nova_in_a_thread

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]
SERVER = "11111111-2222-3333-4444-555555555555"
CONTENT = bytes(range(256)) * 2048


@dataclass
class Cloud:
    """`send` as Nova: rita's token, and its own beside it; each call must succeed."""

    site: LiveSite
    fake: FakeNova
    token: str

    def send(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-Service-Token": self.token, "OpenStack-API-Version": "volume 3.71"}
        session = self.site.session("rita")
        answer = session.request(f"{self.site.url}/v3{path}", method, json=body, headers=headers, raise_exc=False)
        assert answer.status_code < 300, (method, path, answer.text)
        return answer.json() if answer.text else None

    def volume(self, **wanted: Any) -> str:
        made = self.send("POST", "/volumes", {"volume": {"size": 1, **wanted}})["volume"]["id"]
        self.site.settled("rita")
        assert self.status(made) == "available"
        return str(made)

    def shown(self, volume: str) -> dict[str, Any]:
        return dict(self.send("GET", f"/volumes/{volume}")["volume"])

    def status(self, volume: str) -> str:
        return str(self.shown(volume)["status"])

    def reserve(self, volume: str) -> str:
        wanted = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER, "connector": None}}
        return str(self.send("POST", "/attachments", wanted)["attachment"]["id"])

    def attach(self, volume: str, attachment: str, initiator: str = "one") -> None:
        """As a compute service on the volume's own host."""
        _, found = self.site.call("GET", f"/v3/volumes/{volume}")
        host = found["volume"]["os-vol-host-attr:host"].split("@")[0]
        connector = {"host": host, "initiator": f"iqn.2026-01.org.example:{initiator}", "mountpoint": "/dev/vda"}
        self.send("PUT", f"/attachments/{attachment}", {"attachment": {"connector": connector}})
        self.send("POST", f"/attachments/{attachment}/action", {"os-complete": attachment})
        self.fake.attached[SERVER, volume] = attachment

    def attached(self, volume: str, initiator: str = "one") -> str:
        attachment = self.reserve(volume)
        self.attach(volume, attachment, initiator)
        return attachment

    def act(self, volume: str, name: str, body: Any = None) -> None:
        self.send("POST", f"/volumes/{volume}/action", {name: body})

    def end(self, attachment: str) -> None:
        self.send("DELETE", f"/attachments/{attachment}")

    def heard(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The event that Nova gets."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = next((event for event in self.fake.events if condition(event)), None)
            if found is not None:
                return found
            time.sleep(0.05)
        raise AssertionError("Nova does not hear of it")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with nova_in_a_thread(servers={SERVER: "c1"}) as fake:
        sets = (
            "compute.strategy=nova",
            f"identity.keystone.auth_url={fake.url}/identity",
            f"identity.keystone.password={NOVAS_PASSWORD}",
        )
        with live_site(*sets) as site:
            site.people()
            yield Cloud(site, fake, service_token(site))


def service_token(site: LiveSite) -> str:
    """The token of a user nova with the role service."""
    roles = {item["name"]: item["id"] for item in site.call("GET", "/identity/v3/roles")[1]["roles"]}
    project = site.call("POST", "/identity/v3/projects", json={"project": {"name": "clouds"}})[1]["project"]["id"]
    user = {"user": {"name": "nova", "password": PASSWORD, "default_project_id": project}}
    user_id = site.call("POST", "/identity/v3/users", json=user)[1]["user"]["id"]
    assert site.call("PUT", f"/identity/v3/projects/{project}/users/{user_id}/roles/{roles['service']}")[0] == 204
    login = {"user": {"name": "nova", "password": PASSWORD, "domain": {"name": "Default"}}}
    wanted = {"identity": {"methods": ["password"], "password": login}, "scope": {"project": {"id": project}}}
    answer = site.session("admin").request(f"{site.url}/identity/v3/auth/tokens", "POST", json={"auth": wanted})
    return str(answer.headers["X-Subject-Token"])


@pytest.fixture(scope="module")
def image(cloud: Cloud) -> str:
    """A raw image in the site's catalog."""
    form = {"name": "guest", "disk_format": "raw", "container_format": "bare"}
    _, made = cloud.site.call("POST", "/image/v2/images", who="rita", json=form)
    path, headers = f"/image/v2/images/{made['id']}/file", {"Content-Type": "application/octet-stream"}
    answer = cloud.site.session("rita").request(f"{cloud.site.url}{path}", "PUT", data=CONTENT, headers=headers)
    assert answer.status_code == 204
    return str(made["id"])


def test_boot_from_volume_extend_rebuild_and_delete(cloud: Cloud, image: str) -> None:
    volume = cloud.volume(imageRef=image)
    assert cloud.shown(volume)["bootable"] == "true"
    running = cloud.attached(volume)
    assert cloud.site.call("DELETE", f"/v3/attachments/{running}", who="rita")[0] == 409
    cloud.act(volume, "os-extend", {"new_size": 2})
    told = cloud.heard(lambda event: event["name"] == "volume-extended")
    assert (told["server_uuid"], told["tag"], cloud.shown(volume)["size"]) == (SERVER, volume, 2)
    kept = cloud.reserve(volume)
    cloud.end(running)
    assert cloud.status(volume) == "reserved"
    cloud.act(volume, "os-reimage", {"image_id": image, "reimage_reserved": True})
    told = cloud.heard(lambda event: event["name"] == "volume-reimaged")
    assert (told["server_uuid"], told["tag"], cloud.status(volume)) == (SERVER, volume, "reserved")
    cloud.attach(volume, kept)
    assert cloud.status(volume) == "in-use"
    cloud.end(kept)
    assert cloud.status(volume) == "available"
    cloud.send("DELETE", f"/volumes/{volume}")
    cloud.site.settled("rita")


def test_swap(cloud: Cloud) -> None:
    old, new = cloud.volume(), cloud.volume()
    before = cloud.attached(old)
    cloud.act(old, "os-begin_detaching")
    cloud.attached(new)
    cloud.end(before)
    assert (cloud.status(old), cloud.status(new)) == ("available", "in-use")


def test_live_migration(cloud: Cloud) -> None:
    volume = cloud.volume()
    source = cloud.attached(volume)
    target = cloud.attached(volume, "two")
    cloud.end(source)
    shown = cloud.shown(volume)
    assert (shown["status"], [one["attachment_id"] for one in shown["attachments"]]) == ("in-use", [target])


def test_evacuation_and_a_server_that_is_gone(cloud: Cloud) -> None:
    volume = cloud.volume()
    dead = cloud.attached(volume)
    alive = cloud.attached(volume, "two")
    # Nova has the volume by the new attachment: nobody uses the dead host's any more.
    assert cloud.site.call("DELETE", f"/v3/attachments/{dead}", who="rita")[0] == 200
    assert cloud.site.call("DELETE", f"/v3/attachments/{alive}", who="rita")[0] == 409
    host = cloud.fake.servers.pop(SERVER)
    try:
        assert cloud.site.call("DELETE", f"/v3/attachments/{alive}", who="rita")[0] == 200
    finally:
        cloud.fake.servers[SERVER] = host
    assert cloud.status(volume) == "available"
