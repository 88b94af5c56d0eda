"""SIGHUP: back ends come and go, limits and logs change, a file with a mistake changes nothing and is told of."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Refused
from tests.support.site import Part, Site, started

COPIED = 16 << 20
pytestmark = [pytest.mark.kill, pytest.mark.root]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with started(Site(agents=2, sets=("fleet.poll_interval_s=1",))) as made:
        yield made


def reload(part: Part) -> None:
    assert part.process is not None
    part.process.send_signal(signal.SIGHUP)


def write(file: Path, text: str) -> None:
    """Whole at any moment: what was asked for before may be reading it."""
    fresh, was = file.with_suffix(".new"), file.stat()
    fresh.write_text(text)
    os.chown(fresh, was.st_uid, was.st_gid)
    fresh.chmod(was.st_mode & 0o7777)
    fresh.replace(file)


def service(site: Site, name: str) -> Any:
    found = site.api.get("/v3/os-services")["services"]
    return next((row for row in found if row["host"] == name), None)


def issues(site: Site) -> set[str]:
    return {row["code"] for row in site.api.get("/brickyard/v1/issues")["issues"]}


def test_a_back_end_comes_is_away_and_goes(site: Site) -> None:
    host = site.volume_host
    part, config = site.agents[host], site.layout.agent_file(host)
    before, place = config.read_text(), site.folder / host / "more"
    name = f"{host}@more"
    # Its folder can not be made yet: a file is in the way.
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    write(config, f'{before}\n[backends.more]\npath = "{place}"\n')
    reload(part)
    site.truths.eventually(lambda: _is(issues(site), "backend.away"), 30)
    made = site.api.made("works")
    assert site.api.volume(made)["os-vol-host-attr:host"].startswith(f"{host}@files")
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    site.truths.eventually(lambda: _up(service(site, name)), 60)
    site.truths.eventually(lambda: _not(issues(site), "backend.away"), 30)
    write(config, before)
    reload(part)
    site.truths.eventually(lambda: _none(service(site, name)), 30)
    site.api.delete(f"/v3/volumes/{made}")
    site.api.settle()
    assert part.alive


def pool(site: Site, host: str) -> Any:
    found = site.api.get("/v3/scheduler-stats/get_pools?detail=true")["pools"]
    return next(row["capabilities"] for row in found if row["name"].startswith(f"{host}@files"))


def test_a_copy_goes_on_while_its_back_end_changes(site: Site) -> None:
    host = site.volume_host
    part, config = site.agents[host], site.layout.agent_file(host)
    before, pid = config.read_text(), part.pid
    source = site.api.made("source")
    with (site.layout.volumes(host) / "volumes" / source).open("r+b") as out:
        out.write(os.urandom(COPIED))
    slow = before.replace("[backends.files]", f"[backends.files]\nrate_limit = {COPIED // 8}")
    try:
        write(config, slow)
        seen = part.log.read_text().count("configuration reloaded")
        reload(part)
        site.truths.eventually(lambda: _reloaded(part.log, seen + 1), 60)
        copy = site.api.create_volume("copy", source_volid=source)
        site.truths.eventually(lambda: _copies(site, copy), 60)
        defaults = "\n[backend_defaults]\nmax_over_subscription = 3.5\nreserved_percent = 7\n"
        write(config, slow.replace("[backends.files]", "[backends.files]\nreserved_percent = 0") + defaults)
        for _ in range(3):
            reload(part)
        site.truths.eventually(lambda: _has(pool(site, host), "max_over_subscription_ratio", "3.5"), 60)
        assert pool(site, host)["reserved_percentage"] == 0
        site.api.settle(300)
        assert site.api.volume(copy)["status"] == "available"
        assert (part.alive, part.pid) == (True, pid)
        with (site.layout.volumes(host) / "volumes" / copy).open("rb") as made, \
             (site.layout.volumes(host) / "volumes" / source).open("rb") as read:  # fmt: skip
            assert made.read(COPIED) == read.read(COPIED)
        if Path("/dev/loop-control").exists():  # The privileged side has followed, and works.
            body = {"volume_id": copy, "host_id": host}
            attached = site.api.post("/brickyard/v1/attachments", body)["attachment"]["id"]
            site.api.settle(60)
            site.api.delete(f"/brickyard/v1/attachments/{attached}")
            site.api.settle(60)
    finally:
        write(config, before)
        reload(part)
    site.truths.eventually(lambda: _has(pool(site, host), "max_over_subscription_ratio", "20.0"), 60)
    for volume in (copy, source):
        site.api.delete(f"/v3/volumes/{volume}")
    site.api.settle(60)
    site.clean()


def _copies(site: Site, volume_id: str) -> None:
    (operation, *_) = site.api.operations(volume_id)
    assert operation["state"] == "running", "this file system copies at once"
    assert (operation["progress"] or {}).get("done"), operation


def _has(found: Any, key: str, value: str) -> None:
    assert str(found[key]) == value, found[key]


def test_what_decides_whether_a_volume_fits_changes_while_the_site_runs(site: Site) -> None:
    """It is more than what is free, and less than what may be promised."""
    host, coordinator, file = site.volume_host, site.coordinator, site.layout.coordinator_file
    agent, config = site.agents[host], site.layout.agent_file(host)
    before, mine = config.read_text(), file.read_text()
    try:
        write(config, before.replace("[backends.files]", "[backends.files]\nmax_over_subscription = 1.0"))
        reload(agent)
        site.truths.eventually(lambda: _has(pool(site, host), "max_over_subscription_ratio", "1.0"), 60)
        told = pool(site, host)
        size = int((told["total_capacity_gb"] + told["free_capacity_gb"]) / 2)
        if not told["free_capacity_gb"] + 1 < size < told["total_capacity_gb"] - 1:
            pytest.skip("this disk is too empty: no volume is larger than what is free")
        for way, ends in (("standard", "available"), ("cinder", "error"), ("standard", "available")):
            write(file, f'{mine}\n[scheduler]\nover_provisioning_calculation = "{way}"\n')
            seen = coordinator.log.read_text().count("configuration reloaded")
            reload(coordinator)
            site.truths.eventually(lambda seen=seen: _reloaded(coordinator.log, seen + 1), 60)  # type: ignore[misc]
            made = site.api.create_volume(way, size=size)
            site.api.settle(60)
            assert site.api.volume(made)["status"] == ends, (way, site.api.operations(made))
            site.api.delete(f"/v3/volumes/{made}")
            site.api.settle(60)
    finally:
        write(config, before)
        write(file, mine)
        reload(agent)
        reload(coordinator)
    site.truths.eventually(lambda: _has(pool(site, host), "max_over_subscription_ratio", "20.0"), 60)


def _reloaded(log: Path, times: int) -> None:
    assert log.read_text().count("configuration reloaded") >= times


def test_a_mistake_changes_nothing_and_is_told(site: Site) -> None:
    for part, config in (
        (site.coordinator, site.layout.coordinator_file),
        (site.agents[site.volume_host], site.layout.agent_file(site.volume_host)),
    ):
        before = config.read_text()
        write(config, before + '\n[log]\nlevel = "loud"\n')
        reload(part)
        site.truths.eventually(lambda part=part: _told(part.log, "the configuration is refused"), 30)  # type: ignore[misc]
        begun, refused = (part.log.read_text().rindex(words) for words in ("is read again", "configuration is refused"))
        assert begun < refused
        assert part.alive
        write(config, before + '\n[log]\nlevel = "debug"\n')
        reload(part)
        site.truths.eventually(lambda part=part: _told(part.log, "configuration reloaded"), 30)  # type: ignore[misc]
        write(config, before)
        reload(part)
    site.truths.eventually(lambda: _not(issues(site), "config.refused"), 30)
    made = site.api.made("still")
    site.api.delete(f"/v3/volumes/{made}")
    site.clean()


def test_a_file_that_is_written_in_place_is_taken_over_when_it_is_whole(site: Site) -> None:
    """Cut after its first table it is a configuration without back ends; whole again, nothing has happened."""
    host = site.volume_host
    part, config = site.agents[host], site.layout.agent_file(host)
    before, name = config.read_text(), f"{host}@files"
    cut = before.index("[backends")
    seen = part.log.read_text().count("configuration reloaded")
    with config.open("r+") as out:
        out.truncate(cut)
        reload(part)
        site.truths.eventually(lambda: _told(part.log, "names no back end any more"), 30)
        site.truths.eventually(lambda: _is(issues(site), "config.refused"), 30)
        assert _up(service(site, name)) is None
        made = site.api.made("meanwhile")
        out.seek(cut)
        out.write(before[cut:])
    reload(part)
    site.truths.eventually(lambda: _reloaded(part.log, seen + 1), 30)
    site.truths.eventually(lambda: _not(issues(site), "config.refused"), 30)
    site.api.delete(f"/v3/volumes/{made}")
    site.clean()


def _told(log: Path, words: str) -> None:
    assert words in log.read_text()


def _is(found: set[str], code: str) -> None:
    assert code in found


def _not(found: set[str], code: str) -> None:
    assert code not in found


def _up(found: Any) -> None:
    assert found is not None
    assert (found["state"], found["backend_state"]) == ("up", "up")


def _none(found: Any) -> None:
    assert found is None


def test_rules_of_the_operators_file_are_read_again() -> None:
    made = Site(agents=1)
    file = made.folder / "policy.yaml"
    file.write_text('"volume:get_all": "!"\n')
    file.chmod(0o644)
    made.coordinator.sets = (*made.coordinator.sets, f"identity.policy_file={file}")
    with started(made) as site:
        with pytest.raises(Refused, match="403"):
            site.api.volumes()
        write(file, '"volume:get_all": ""\n')
        reload(site.coordinator)
        site.truths.eventually(lambda: _told(site.coordinator.log, "configuration reloaded"), 30)
        assert site.api.volumes() == []
