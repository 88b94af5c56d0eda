"""Two who clear away old rows at once, while the coordinator dies and comes back all along: each row goes once, and
what lives stays."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from agent.base.ids import new_id
from coordinator.state.database import Database
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.volumes import volume_metadata, volumes
from tests.support import postgres
from tests.support.site import Site, started

pytestmark = [pytest.mark.kill, pytest.mark.root, pytest.mark.timeout(900)]
BIN = Path(sys.executable).parent
ROWS = int(os.environ.get("BRICKYARD_PURGED", "1500"))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    database = postgres.cluster().database() if request.param == "postgresql" else None
    with started(Site(agents=1, sets=("fleet.poll_interval_s=1",), database=database)) as made:
        yield made


def fill(site: Site) -> None:
    """Volumes that were deleted ten days ago."""
    old = utcnow() - datetime.timedelta(days=10)
    same = {"project_id": site.api.project, "user_id": "u", "size": 1, "status": "deleted", "deleted": True,
            "created_at": old, "deleted_at": old}  # fmt: skip
    ids = [new_id() for _ in range(ROWS)]

    def write(conn: Connection) -> None:
        conn.execute(insert(volumes), [{"id": one, **same} for one in ids])
        conn.execute(insert(volume_metadata), [{"volume_id": one, "key": "k", "value": "v"} for one in ids])

    assert site.coordinator.stop() == 0
    path = site.layout.coordinator_state / "coordinator.db"
    with closing(Database.sqlite(path) if site.database is None else Database.postgresql(site.database)) as db:
        db.write_now(write)
    site.restart("coordinator")
    site.coordinator.heard("up")


def begun(site: Site, *words: str) -> subprocess.Popen[str]:
    state = [f"--set={item}" for item in site.coordinator.sets if item.startswith("state.")]
    line = [BIN / "brickyard-coordinator", "db", *words, "--config", str(site.coordinator.config), *state]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("words", "did"), [(("purge", "7"), "dropped"), (("archive", "--older-than", "7"), "archived")]
)
def test_two_at_once_beside_a_coordinator_that_dies(site: Site, words: tuple[str, ...], did: str) -> None:
    living = site.api.made("living", metadata={"k": "v"})
    fill(site)
    both = [begun(site, *words) for _ in range(2)]
    while any(each.poll() is None for each in both):
        site.coordinator.kill()
        site.restart("coordinator")
        site.coordinator.heard("up")
    told = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    lines = [line for one in told for line in one.splitlines() if line.startswith("volumes: ")]
    assert sum(int(line.split()[1]) for line in lines if line.endswith(did)) == ROWS, told
    assert site.truths.rows("SELECT id FROM volumes WHERE deleted AND size = 1 AND user_id = 'u'") == []
    assert site.api.volume(living)["metadata"] == {"k": "v"}
    assert site.api.usage()["volumes"] == 1
    check = begun(site, "check")
    assert (check.communicate(timeout=120)[0].endswith("no problem found.\n"), check.returncode) == (True, 0)
    site.api.delete(f"/v3/volumes/{living}")
    site.clean()
