"""A site of the release before becomes one of this release on PostgreSQL while clients work, and none of their calls
fails: its schema first, then one coordinator after the other behind a web server, then one agent after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cinderclient import client as cinderclient
from keystoneauth1 import session
from keystoneauth1.identity.v3 import Password

from tests.integration.kill.test_releases_together import of_release
from tests.support import postgres
from tests.support import release as released
from tests.support.nginx import BINARY, Nginx, address, nginx
from tests.support.ports import free_port
from tests.support.site import Part, Site, started, zygote

pytestmark = [
    pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.slow, pytest.mark.timeout(1800),
    pytest.mark.skipif(BINARY is None, reason="nginx is not installed"),
]  # fmt: skip
BIN = Path(sys.executable).parent
USERS, LIMIT_S = 3, 300.0


@dataclass
class User:
    """Makes, looks at, enlarges and deletes volumes by python-cinderclient, one after the other, until told to stop."""

    cinder: Any
    stop: threading.Event
    name: str
    rounds: int = 0
    failed: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        try:
            while not self.stop.is_set() and not self.failed:
                self._round()
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.failed.append(error)

    def _round(self) -> None:
        volumes = self.cinder.volumes
        made = volumes.create(1, name=f"{self.name}-{self.rounds}", metadata={"round": str(self.rounds)})
        self._until(made.id, "available")
        copy = volumes.create(1, source_volid=made.id) if self.rounds % 3 == 0 else None
        if copy is not None:
            self._until(copy.id, "available")
            volumes.delete(copy.id)
        volumes.extend(made.id, 2)
        assert self._until(made.id, "available").size == 2
        assert made.id in {each.id for each in volumes.list(detailed=False, limit=1000)}
        volumes.delete(made.id)

    def _until(self, volume_id: str, status: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while (found := self.cinder.volumes.get(volume_id)).status != status:
            assert not found.status.startswith("error"), (found.status, found._info)
            assert time.monotonic() < deadline, f"{volume_id} is still {found.status}"
            time.sleep(0.1)
        return found


@contextmanager
def users(site: Site, url: str) -> Iterator[list[User]]:
    """Their work goes on meanwhile; at the end none of their calls has failed."""
    stop = threading.Event()
    made = [User(_client(site, url), stop, f"user{number}") for number in range(USERS)]
    threads = [threading.Thread(target=user.work) for user in made]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [user.failed for user in made] == [[]] * USERS


def _client(site: Site, url: str) -> Any:
    login = Password(
        f"{url}/identity/v3", username="admin", password=site.api.password(), project_name="admin",
        user_domain_name="Default", project_domain_name="Default",
    )  # fmt: skip
    return cinderclient.Client("3.71", session=session.Session(login, timeout=120), region_name="RegionOne")


def worked_on(made: list[User]) -> None:
    """Each of them has done a whole round from now on."""
    before, deadline = [user.rounds for user in made], time.monotonic() + LIMIT_S
    while any(user.rounds < was + 2 for user, was in zip(made, before, strict=True)):
        assert not any(user.failed for user in made), [user.failed for user in made]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def replaced(site: Site, part: Part, proxy: Nginx | None = None) -> None:
    """Stopped as by systemd, and started as one of this release; a coordinator is asked by nobody meanwhile."""
    if proxy is not None:
        proxy.ask([each.api.port for each in site.coordinators if each is not part])
    assert part.stop() == 0, part.tail()
    part.forked_by = zygote
    part.start()
    if proxy is not None:
        part.heard("up")
        proxy.ask(ports_of(site))


def ports_of(site: Site) -> list[int]:
    return [each.api.port for each in site.coordinators]


@pytest.mark.parametrize("release", released.releases())
def test_no_call_fails_while_all_is_replaced(release: str) -> None:
    port = free_port()
    sets = ("fleet.poll_interval_s=1", f"api.public_endpoint={address(port)}")
    site = Site(agents=2, sets=sets, database=postgres.cluster().database(), coordinators=2)
    of_release(site, release)
    with started(site), nginx(site.folder, ports_of(site), keepalive_s=0, port=port) as proxy:
        with users(site, proxy.url) as made:
            worked_on(made)
            state = [f"--set=coordinator.state_dir={site.layout.coordinator_state}", f"--set=state.url={site.database}"]
            words = [BIN / "brickyard-coordinator", "db", "upgrade", *state]
            done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
            assert done.returncode == 0, done.stdout + done.stderr
            worked_on(made)
            for part in site.coordinators:
                replaced(site, part, proxy)
                worked_on(made)
            for part in site.agents.values():
                replaced(site, part)
                worked_on(made)
        site.api.hang_up()
        site.api.login()
        site.api.settle(300)
        assert site.api.volumes() == []
        assert site.api.usage() == {"volumes": 0, "gigabytes": 0, "snapshots": 0}
        site.clean()
