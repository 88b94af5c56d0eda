"""Images whose data are a volume of the site: cloned where the owner is right, downloaded from their service elsewhere.

The service is a small one that speaks the few words of Glance that are asked for.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from tests.support.signing import holder
from tests.support.site import Site, started

pytestmark = pytest.mark.timeout(600)
MiB, GiB = 1 << 20, 1 << 30
PROJECT = "cac0e000000000000000000000000000"
HELD, SENT = b"from the volume " * 4096, b"from the service" * 4096


@dataclass
class Images:
    """What is registered, and which images' data were asked for."""

    url: str
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def add(self, **values: Any) -> str:
        image_id = new_id()
        plain = {"disk_format": "raw", "container_format": "bare", "size": len(SENT), "min_disk": 0}
        named = {"id": image_id, "name": "i", "status": "active", "visibility": "public", "updated_at": "now"}
        self.known[image_id] = {**plain, **named, **values}
        return image_id


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, _, rest = self.path.removeprefix("/v2/images/").partition("/")
            known = found.known.get(name)
            body = SENT if rest else json.dumps(known).encode()
            if rest:
                found.fetched.append(name)
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/octet-stream" if rest else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
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
            'images.glance.direct_url_schemes=["cinder"]', f"images.internal_project={PROJECT}")  # fmt: skip
    with started(Site(1, sets)) as made:
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
    site.api.settle(60)
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
