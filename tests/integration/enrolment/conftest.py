"""The site of each test here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.enrolment.authority import FileCaStore
from coordinator.enrolment.ca import Authority
from coordinator.enrolment.listener import EnrolmentListener
from coordinator.enrolment.own import own_identity
from coordinator.enrolment.service import Enrolment
from coordinator.state.database import Database
from coordinator.state.tables import enrolment as tables
from coordinator.state.tables import metadata
from tests.integration.enrolment.joined import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    db = Database.sqlite(tmp_path / "state.db")
    metadata.create_all(db.engine, tables=[tables.join_tokens, tables.enrolled_hosts, tables.certificates])
    authority = Authority.open(FileCaStore(tmp_path / "ca"))
    identity = own_identity(tmp_path / "tls", authority)
    enrolment = Enrolment(authority, db)
    listener = EnrolmentListener(enrolment, identity, "127.0.0.1")
    await listener.start()
    yield Site(tmp_path, db, authority, identity, enrolment, listener.port)
    await listener.close()
    db.close()
