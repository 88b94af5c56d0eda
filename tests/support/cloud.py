"""A site among real services: identities at a Keystone, images at a Glance, and the commands that people type."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import shell
from tests.support.barbican import Barbican, barbican
from tests.support.glance import Glance, glance
from tests.support.keystone import Keystone, keystone
from tests.support.site import Site, started

PATIENCE_S = 600.0
"""A GiB through a Glance of one process takes minutes on a busy machine."""
PASSWORD = "pass word"
SETTLED = {"available", "error"}


class GlanceSite(Site):
    """A site whose identities a Keystone proves and whose images a Glance keeps; `password` is its own at both."""

    def __init__(
        self, stone: Keystone, images: Glance, sets: tuple[str, ...] = (), *, password: str = PASSWORD, **more: Any
    ) -> None:
        self.stone, self.images = stone, images
        super().__init__(
            1,
            (
                "identity.strategy=keystone", f"identity.keystone.auth_url={stone.url}",
                f"identity.keystone.password={password}", "images.service=glance", f"images.glance.url={images.url}",
                "identity.keystone.timeout_s=120", "images.glance.timeout_s=120", *sets,
            ),
            **more,
        )  # fmt: skip
        self.api.login = self.log_in  # type: ignore[method-assign]

    def log_in(self) -> None:
        self.api._token = self.stone.token("boss", PASSWORD, project="one")
        self.api.project = self.stone.call("GET", "/projects?name=one")["projects"][0]["id"]

    def volume(self, volume_id: str) -> Path:
        return self.layout.volumes(self.volume_host) / "volumes" / volume_id

    def settled(self, volume_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.api.call("GET", f"/v3/volumes/{volume_id}", patient=60)["volume"]
            if found["status"] in SETTLED:
                return dict(found)
            time.sleep(0.1)
        raise AssertionError(f"volume {volume_id} does not settle: {found['status']}\n{self.logs()}")


@dataclass
class Cloud:
    """`said` is all that commands have told."""

    site: GlanceSite
    stone: Keystone
    images: Glance
    secrets: Barbican | None = None
    said: list[str] = field(default_factory=list)

    def type(self, *words: str, who: str = "ann", project: str = "one") -> shell.Done:
        """A command of `openstack`, or of `brickyard` where that is the first word; it may end as it will."""
        login = {
            "OS_AUTH_URL": self.stone.url, "OS_USERNAME": who, "OS_PASSWORD": PASSWORD, "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default", "OS_IDENTITY_API_VERSION": "3",
            "OS_VOLUME_API_VERSION": "3.71", "OS_REGION_NAME": "RegionOne",
        }  # fmt: skip
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        typed = words if words[0] == "brickyard" else ("openstack", *words)
        done = shell.run(self.site.folder, {**clean, **login}, *typed)
        self.said += [done.out, done.err]
        return done

    def run(self, *words: str, who: str = "ann", project: str = "one", fails: bool = False) -> Any:
        """The JSON answer of a command, or where it has to fail its complaint."""
        done = self.type(*words, who=who, project=project)
        assert (done.code != 0) == fails, f"{words}\n{done.out}\n{done.err}\n{self.site.logs()}"
        return done.err if fails else done.json()

    def token(self, who: str = "ann", project: str = "one") -> str:
        return self.stone.token(who, PASSWORD, project=project)

    def image(self, image_id: str) -> dict[str, Any]:
        """The image as its owner sees it, once nothing happens to it any more."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.images.call("GET", f"/v2/images/{image_id}", token=self.token())
            if found["status"] not in {"queued", "saving", "importing"}:
                return dict(found)
            time.sleep(0.2)
        raise AssertionError(f"image {image_id} stays {found['status']}\n{self.site.logs()}")


@contextmanager
def cloud(
    folder: Path, make: Callable[[Keystone, Glance], GlanceSite] = GlanceSite, password: str = PASSWORD,
    *, volumes: bool = False, secrets: bool = False,
) -> Iterator[Cloud]:  # fmt: skip
    """Up, with ann (member) and boss (admin) in the project one, bea in two.

    `password` is the site's own, `volumes` as in `glance`; with `secrets` there is a Barbican in the catalog.
    """
    with ExitStack() as stack:
        stone = stack.enter_context(keystone(folder / "keystone"))
        service, one, two = (stone.project(name) for name in ("service", "one", "two"))
        stone.user("brickyard", password, service, "service", "admin", "creator", "member")
        stone.user("boss", PASSWORD, one, "admin", "member")
        stone.user("ann", PASSWORD, one, "member")
        stone.user("bea", PASSWORD, two, "member")
        keeper = stack.enter_context(barbican(folder / "barbican", stone.url, password)) if secrets else None
        if keeper is not None:
            stone.endpoint("key-manager", "barbican", keeper.url)
        images = stack.enter_context(glance(folder / "glance", stone.url, password, volumes=volumes))
        site = stack.enter_context(started(make(stone, images)))
        for kind, name, url in (
            ("image", "glance", images.url),
            ("block-storage", "brickyard", f"http://127.0.0.1:{site.layout.port}/v3"),
            ("volumev3", "brickyard3", f"http://127.0.0.1:{site.layout.port}/v3"),
        ):
            stone.endpoint(kind, name, url)
        yield Cloud(site, stone, images, keeper)
