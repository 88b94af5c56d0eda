"""Images whose data are a volume of the site: cloned where the owner is right, downloaded from their service elsewhere;
and volumes that become such images.

The service is a small one that speaks the few words of Glance that are asked for.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from tests.support.api import AWAY, Refused
from tests.support.signing import holder
from tests.support.site import Site, started

pytestmark = pytest.mark.timeout(1800)
MiB, GiB = 1 << 20, 1 << 30
PROJECT = "cac0e000000000000000000000000000"
PLACING = ("x-image-meta-store", "x-openstack-base-image-ref")
HELD, SENT = b"from the volume " * 4096, b"from the service" * 4096


@dataclass
class Images:
    """What is registered, and which images' data were asked for."""

    url: str
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    sent: dict[str, str] = field(default_factory=dict)
    placed: dict[str, dict[str, str]] = field(default_factory=dict)
    """With which headers data came that say where they should lie."""
    owner: str = ""
    takes_volumes: bool = True

    def add(self, **values: Any) -> str:
        image_id = str(values.get("id") or new_id())
        plain = {"disk_format": "raw", "container_format": "bare", "size": len(SENT), "min_disk": 0}
        named = {"id": image_id, "name": "i", "status": "active", "visibility": "public", "updated_at": "now"}
        self.known[image_id] = {**plain, **named, **values}
        return image_id

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """What it says to a call that carries no data."""
        if path.startswith("/v2/info/stores"):
            stores = [{"id": "files", "type": "file", "default": True}, {"id": "block", "type": "cinder"}]
            return 200, {"stores": stores}
        if path.startswith("/v2/tasks"):
            return 200, {"tasks": []}
        if path.endswith("/locations"):
            return 404, {}  # newer ones alone have that
        if method == "POST":
            body = {key: value for key, value in body.items() if value is not None}
            return 201, self.known[self.add(status="queued", owner=self.owner, locations=[], **body)]
        name = path.removeprefix("/v2/images/")
        if name not in self.known:
            return 404, {}
        if method == "DELETE":
            return 204, self.known.pop(name)
        if method == "PATCH":
            [change] = body
            assert (change["op"], change["path"]) == ("add", "/locations/-")
            if not self.takes_volumes:
                return 403, {"message": "locations are invisible"}
            self.known[name]["locations"].append(change["value"])
            self.known[name] |= {"status": "active", "size": GiB}
        return 200, self.known[name]


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/file"):
                found.fetched.append(self.path.split("/")[3])
                return self.say(200, SENT, "application/octet-stream")
            return self.told()

        def do_PUT(self) -> None:
            digest, left = hashlib.sha512(), int(self.headers["Content-Length"])
            image = found.known[self.path.split("/")[3]]
            image["size"] = left
            told = {name.lower(): value for name, value in self.headers.items()}
            found.placed[image["id"]] = {name: told[name] for name in PLACING if name in told}
            while left:
                block = self.rfile.read(min(left, 4 * MiB))
                digest.update(block)
                left -= len(block)
            image |= {"status": "active", "os_hash_algo": "sha512", "os_hash_value": digest.hexdigest()}
            found.sent[image["id"]] = digest.hexdigest()
            self.say(204, b"", "application/json")

        def told(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = found.answer(self.command, self.path, json.loads(text or b"null"))
            self.say(status, json.dumps(body).encode(), "application/json")

        do_POST = do_PATCH = do_DELETE = told

        def say(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Images(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()


@pytest.fixture(scope="module")
def site(images: Images) -> Iterator[Site]:
    sets = ("images.service=glance", f"images.glance.url={images.url}", "images.glance.auth=none",
            'images.glance.direct_url_schemes=["cinder"]', f"images.internal_project={PROJECT}",
            "images.glance.upload_clones=true")  # fmt: skip
    # Rows are altered below behind the back of any sum.
    with started(Site(1, (*sets, "quota.driver=dynamic"))) as made:
        made.api.login()
        images.owner = made.api.project
        yield made


def path(site: Site, volume_id: str) -> Path:
    return site.layout.volumes(site.volume_host) / "volumes" / volume_id


def holding(site: Site) -> str:
    """A volume with the image's data in it."""
    volume_id = site.api.made("holder")
    with path(site, volume_id).open("r+b") as file:
        file.write(HELD)
    return volume_id


def made(site: Site, image_id: str, size: int = 2, **more: Any) -> tuple[dict[str, Any], bytes]:
    volume_id = site.api.made("v", size, imageRef=image_id, **more)
    assert path(site, volume_id).stat().st_size >= size * GiB
    with path(site, volume_id).open("rb") as file:
        return site.api.volume(volume_id), file.read(len(HELD))


@pytest.mark.parametrize("form", ["cinder://{}", "cinder://store-1/{}"])
def test_an_image_that_is_a_volume_of_its_owner_is_cloned(site: Site, images: Images, form: str) -> None:
    held = holding(site)
    url = form.format(held)
    image_id = images.add(owner=site.api.project, size=GiB, locations=[{"url": url, "metadata": {}}], colour="red")
    volume, content = made(site, image_id)
    assert (content, volume["size"], volume["bootable"], volume["source_volid"]) == (HELD, 2, "true", None)
    assert volume["volume_image_metadata"]["colour"] == "red"
    assert volume["volume_image_metadata"]["signature_verified"] == "False"
    assert image_id not in images.fetched
    site.clean()


def test_a_volume_of_this_site_counts_for_whom_it_was_noted(site: Site, images: Images) -> None:
    held = holding(site)
    with sqlite3.connect(site.layout.coordinator_state / "coordinator.db") as db:
        db.execute("UPDATE volumes SET project_id = ?, use_quota = 0 WHERE id = ?", (PROJECT, held))
        db.execute("INSERT INTO volume_metadata VALUES (?, 'image_owner', 'them')", (held,))
    place = [{"url": f"cinder://{held}", "metadata": {}}]
    theirs, others = images.add(owner="them", locations=place), images.add(owner="others", locations=place)
    assert made(site, theirs)[1] == HELD
    assert made(site, others)[1] == SENT
    assert (theirs in images.fetched, others in images.fetched) == (False, True)


def test_whoever_only_says_that_a_volume_is_his_gets_what_the_service_gives(site: Site, images: Images) -> None:
    held = holding(site)
    place = [{"url": f"cinder://{held}", "metadata": {}}]
    wrong = [
        images.add(owner="somebody", locations=place),
        images.add(owner="", locations=place),
        images.add(owner=site.api.project, locations=[{"url": f"cinder://{new_id()}"}, {"url": "file:///etc/passwd"}]),
        images.add(owner=site.api.project, locations=[{"url": f"cinder://{held}/../x"}]),
        images.add(owner=site.api.project, locations=place, img_signature="x"),
    ]
    for image_id in wrong[:-1]:
        assert made(site, image_id)[1] == SENT
        assert image_id in images.fetched
    volume_id = site.api.create_volume("v", imageRef=wrong[-1])
    site.api.settle(600)
    assert site.api.volume(volume_id)["status"] == "error"
    signer = holder("signer")
    import base64

    key = {"type": "certificate", "payload_b64": base64.b64encode(signer.pem).decode()}
    properties = signer.properties(SENT, str(site.api.post("/brickyard/v1/keys", {"key": key})["key"]["id"]))
    signed = images.add(owner=site.api.project, locations=place, **properties)
    volume, content = made(site, signed)
    assert (content, volume["volume_image_metadata"]["signature_verified"]) == (SENT, "True")


def test_what_can_not_be_cloned_is_downloaded(site: Site, images: Images) -> None:
    held = holding(site)
    place = [{"url": f"cinder://{held}", "metadata": {}}]
    image_id = images.add(owner=site.api.project, locations=place)
    _, content = made(site, image_id, volume_type=site.api.encrypted_type())
    assert content[:4] != HELD[:4]
    assert image_id in images.fetched
    big = site.api.made("big", 3)
    large = images.add(owner=site.api.project, locations=[{"url": f"cinder://{big}"}])
    assert made(site, large)[1] == SENT
    lost = images.add(owner=site.api.project, locations=place)
    path(site, held).rename(path(site, held).with_name("elsewhere"))
    try:
        assert made(site, lost)[1] == SENT
        assert lost in images.fetched
    finally:
        path(site, held).with_name("elsewhere").rename(path(site, held))
    site.clean()


def uploaded(site: Site, volume_id: str, **more: Any) -> str:
    body = {"image_name": "i", "disk_format": "raw", "container_format": "bare", **more}
    answer = site.api.post(f"/v3/volumes/{volume_id}/action", {"os-volume_upload_image": body})
    return str(answer["os-volume_upload_image"]["image_id"])


def behind(site: Site, image_id: str) -> list[dict[str, Any]]:
    """Volumes that are the image."""
    return [row for row in site.truths.live("volumes") if row["name"] == f"image-{image_id}"]


def test_a_volume_becomes_an_image_by_a_clone(site: Site, images: Images) -> None:
    held, before = holding(site), site.api.usage()
    image_id = uploaded(site, held)
    site.api.settle(600)
    [row], image = behind(site, image_id), images.known[image_id]
    assert (image["status"], image["locations"][0]["url"]) == ("active", f"cinder://block/{row['id']}")
    assert (image_id in images.sent, site.api.volume(held)["status"]) == (False, "available")
    copy = site.api.volume(row["id"])
    assert (copy["status"], copy["size"]) == ("available", 1)
    assert (copy["metadata"]["image_owner"], copy["metadata"]["glance_image_id"]) == (site.api.project, image_id)
    assert site.api.usage() == {**before, "volumes": before["volumes"] + 1, "gigabytes": before["gigabytes"] + 1}
    # Nobody writes to what is an image, and what is made of it needs no download.
    wish = {"volume_uuid": row["id"], "instance_uuid": new_id(), "mode": "rw"}
    with pytest.raises(Refused, match="read-only"):
        site.api.post("/v3/attachments", {"attachment": wish})
    volume, content = made(site, image_id)
    assert (content, volume["size"], image_id in images.fetched) == (HELD, 2, False)
    site.api.delete(f"/v3/volumes/{held}")
    site.api.settle(600)
    assert made(site, image_id)[1] == HELD
    site.clean()


def test_where_the_service_takes_no_volume_or_there_is_no_quota_the_data_are_sent(site: Site, images: Images) -> None:
    held, images.takes_volumes = holding(site), False
    before = site.api.usage()
    try:
        image_id = uploaded(site, held)
        site.api.settle(600)
    finally:
        images.takes_volumes = True
    with path(site, held).open("rb") as file:
        assert images.sent[image_id] == hashlib.file_digest(file, "sha512").hexdigest()
    assert (images.known[image_id]["status"], images.known[image_id]["locations"]) == ("active", [])
    assert (behind(site, image_id), site.api.usage()) == ([], before)
    quota = f"/v3/os-quota-sets/{site.api.project}"
    site.api.call("PUT", quota, {"quota_set": {"volumes": before["volumes"]}})
    try:
        image_id = uploaded(site, held)
        site.api.settle(600)
    finally:
        site.api.call("PUT", quota, {"quota_set": {"volumes": -1}})
    assert (image_id in images.sent, behind(site, image_id)) == (True, [])
    assert site.api.volume(held)["status"] == "available"
    site.clean()


def test_data_are_sent_with_the_store_of_the_type_and_the_name_of_the_first_image(site: Site, images: Images) -> None:
    first = images.add(owner=site.api.project)
    kind = {"volume_type": {"name": "filed", "extra_specs": {"image_service:store_id": "nowhere"}}}
    with pytest.raises(Refused, match="nowhere"):
        site.api.post("/v3/types", kind)
    kind["volume_type"]["extra_specs"] = {"image_service:store_id": "files"}  # type: ignore[dict-item]
    site.api.post("/v3/types", kind)
    store, base = {PLACING[0]: "files"}, {PLACING[1]: first}
    wanted = {
        site.api.made("blank"): {},
        site.api.made("of the image", imageRef=first): base,
        site.api.made("blank, of the type", volume_type="filed"): store,
        site.api.made("of both", imageRef=first, volume_type="filed"): {**store, **base},
    }
    # That it is gone meanwhile is no matter.
    del images.known[first]
    for volume_id, headers in wanted.items():
        image_id = uploaded(site, volume_id, disk_format="qcow2")
        site.api.settle(600)
        assert (images.known[image_id]["status"], images.placed[image_id]) == ("active", headers)
        assert site.api.volume(volume_id)["status"] == "available"
    site.clean()


KILLS = [
    *(("coordinator", f"coordinator.step.committed@{n}") for n in range(1, 3)),
    *(("coordinator", f"coordinator.job.{point}") for point in ("before-post", "result-in-hand")),
    *(("host-a", f"agent.job.{point}") for point in ("started", "effect-done", "finished")),
]


@pytest.mark.kill
@pytest.mark.parametrize(("part", "fault"), KILLS)
def test_killed_anywhere_there_is_one_image_and_one_volume_behind_it(
    site: Site, images: Images, part: str, fault: str
) -> None:
    held = holding(site)
    site.parts[part].arm(fault)
    with suppress(*AWAY):
        uploaded(site, held, image_name=fault)
    assert site.parts[part].died(300) == -signal.SIGKILL
    site.restart(part)
    site.api.settle(600)
    [image] = [each for each in images.known.values() if each["name"] == fault]
    [row] = behind(site, image["id"])
    assert (image["status"], row["status"]) == ("active", "available")
    assert [each["url"] for each in image["locations"]] == [f"cinder://block/{row['id']}"]
    assert (made(site, image["id"])[1], site.api.volume(held)["status"]) == (HELD, "available")
    site.clean()


def test_a_clone_of_the_site_counts_to_no_quota(images: Images) -> None:
    sets = ("images.service=glance", f"images.glance.url={images.url}", "images.glance.auth=none",
            'images.glance.direct_url_schemes=["cinder"]', f"images.internal_project={PROJECT}",
            "images.glance.upload_clones=true", "images.glance.upload_clones_internal=true")  # fmt: skip
    with started(Site(1, sets)) as other:
        other.api.login()
        images.owner = other.api.project
        held, before = holding(other), other.api.usage()
        image_id = uploaded(other, held)
        other.api.settle(600)
        [row] = behind(other, image_id)
        assert (row["project_id"], other.api.usage(), image_id in images.sent) == (PROJECT, before, False)
        assert made(other, image_id)[1] == HELD
        assert image_id not in images.fetched
        other.clean()
