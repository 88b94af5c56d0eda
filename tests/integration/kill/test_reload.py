"""SIGHUP: back ends come and go, limits and logs change, a file with a mistake changes nothing and is told of."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Refused
from tests.support.site import Part, Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with started(Site(agents=2, sets=("fleet.poll_interval_s=1",))) as made:
        yield made


def reload(part: Part) -> None:
    assert part.process is not None
    part.process.send_signal(signal.SIGHUP)


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
    config.write_text(f'{before}\n[backends.more]\npath = "{place}"\n')
    reload(part)
    site.truths.eventually(lambda: _is(issues(site), "backend.away"), 30)
    made = site.api.made("works")
    assert site.api.volume(made)["os-vol-host-attr:host"].startswith(f"{host}@files")
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    site.truths.eventually(lambda: _up(service(site, name)), 60)
    site.truths.eventually(lambda: _not(issues(site), "backend.away"), 30)
    config.write_text(before)
    reload(part)
    site.truths.eventually(lambda: _none(service(site, name)), 30)
    site.api.delete(f"/v3/volumes/{made}")
    site.api.settle()
    assert part.alive


def test_a_mistake_changes_nothing_and_is_told(site: Site) -> None:
    for part, config in (
        (site.coordinator, site.layout.coordinator_file),
        (site.agents[site.volume_host], site.layout.agent_file(site.volume_host)),
    ):
        before = config.read_text()
        config.write_text(before + '\n[log]\nlevel = "loud"\n')
        reload(part)
        site.truths.eventually(lambda part=part: _told(part.log, "the configuration is refused"), 30)  # type: ignore[misc]
        assert part.alive
        config.write_text(before + '\n[log]\nlevel = "debug"\n')
        reload(part)
        site.truths.eventually(lambda part=part: _told(part.log, "configuration reloaded"), 30)  # type: ignore[misc]
        config.write_text(before)
        reload(part)
    site.truths.eventually(lambda: _not(issues(site), "config.refused"), 30)
    made = site.api.made("still")
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
        file.write_text('"volume:get_all": ""\n')
        reload(site.coordinator)
        site.truths.eventually(lambda: _told(site.coordinator.log, "configuration reloaded"), 30)
        assert site.api.volumes() == []
