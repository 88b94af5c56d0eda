"""How a volume reaches another host: what is chosen, what its host is told, and that it is told again as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from agent.base.ids import new_id
from agent.wire.chap import user_of
from agent.wire.jobs import ExportApply
from agent.wire.results import HostFacts, Pool, RbdAccess
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.operations import transports
from coordinator.operations.advance import advance, again
from coordinator.operations.attach_host import accept_attach, attach_workflow
from coordinator.operations.exports import chap_secret, connection_of, export_call
from coordinator.operations.external_attachments import Wanted, reserve
from coordinator.operations.transports import HostTooOld, NoTransport, OnlyInCluster
from coordinator.operations.workflow import JobStep
from coordinator.state import enrolment, fleet, volumes
from coordinator.state.database import Database
from coordinator.state.enrolment import EnrolledHost
from coordinator.state.schema import prepare
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move
from tests.unit.coordinator.operations.support import REQUESTER

KEYS = KeyStore(Kek(b"k" * 32))
IQN = "iqn.2026-01.org.x:away"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database.sqlite(tmp_path / "state.db")
    database.write_now(prepare)
    yield database
    database.close()


def host(
    conn: Connection, name: str, protocols: tuple[str, ...] = ("local",), rbd: RbdAccess | None = None, **facts: Any
) -> None:
    enrolment.put_host(conn, EnrolledHost(name, "127.0.0.1", 1, 2, "0" * 64, utcnow()))
    fleet.ensure_hosts(conn)
    told = HostFacts(
        host=name, boot_id="b", arch="x", kernel="k", version="v", started_at="", clock=0.0,
        **{"job_kinds": ("export.apply",), **facts},
    )  # fmt: skip
    pool = Pool(
        backend="files", name="files", driver="file", total_bytes=1 << 40, free_bytes=1 << 40, allocated_bytes=0,
        protocols=protocols, rbd=rbd,
    )  # fmt: skip
    fleet.report(conn, name, told, [pool])


def volume(conn: Connection) -> str:
    row = enter(conn, "volume", "create", id=new_id(), project_id="p1", user_id="u", size=1, host_id="home",
                backend="files", pool_id="home@files#files")  # fmt: skip
    move(conn, "volume", row.id, "created", device_bytes=1 << 30)
    return str(row.id)


def site(conn: Connection, protocols: tuple[str, ...] = ("local", "iscsi"), **facts: Any) -> str:
    host(conn, "home", protocols)
    host(conn, "away", **{"capabilities": ("iscsi",), "initiator_iqn": IQN, **facts})
    return volume(conn)


def chosen(conn: Connection, volume_id: str, name: str = "away") -> transports.Transport | None:
    return transports.choose(conn, volumes.get(conn, volume_id), fleet.get(conn, name))


def test_the_own_host_needs_none_and_another_gets_what_both_can(db: Database) -> None:
    known = db.write_now(site)
    assert db.read_now(lambda conn: chosen(conn, known, "home")) is None
    assert db.read_now(lambda conn: chosen(conn, known)) == transports.Transport("iscsi", IQN)


def test_nvme_is_preferred_but_read_only_goes_where_it_is_enforced(db: Database) -> None:
    nqn = "nqn.2026-01.org.x:away"
    facts = {"capabilities": ("iscsi", "nvme-tcp"), "nqn": nqn}
    known = db.write_now(lambda conn: site(conn, ("local", "iscsi", "nvme-tcp"), **facts))
    assert db.read_now(lambda conn: chosen(conn, known)) == transports.Transport("nvme-tcp", nqn)
    _, attachment = db.write_now(lambda conn: accept_attach(conn, REQUESTER, known, "away", mode="ro"))
    assert (attachment.transport, attachment.initiator) == ("iscsi", IQN)


EVERY = ("nvme-tcp", "iscsi", "nvme-rdma", "iser")


@pytest.mark.parametrize(
    ("able", "writing", "reading"),
    [
        (EVERY, "nvme-rdma", "iser"),
        (("iscsi", "nvme-tcp"), "nvme-tcp", "iscsi"),
        (("iscsi", "iser", "nvme-tcp"), "iser", "iser"),
    ],
)
def test_a_host_goes_by_rdma_where_both_can(db: Database, able: tuple[str, ...], writing: str, reading: str) -> None:
    nqn = "nqn.2026-01.org.x:away"
    known = db.write_now(lambda conn: site(conn, ("local", *EVERY), capabilities=able, nqn=nqn))
    (there, names) = db.read_now(lambda conn: (volumes.get(conn, known), fleet.get(conn, "away")))
    for mode, protocol in (("rw", writing), ("ro", reading)):
        found = db.read_now(lambda conn, mode=mode: transports.choose(conn, there, names, mode))  # type: ignore[misc]
        assert found is not None
        assert found.protocol == protocol
    assert transports.auth_of("iser") == "chap"


@pytest.mark.parametrize(
    ("offered", "mode", "protocol"),
    [
        (EVERY, "rw", "nvme-tcp"),
        (EVERY, "ro", "iscsi"),
        (("iser", "nvme-rdma"), "rw", "nvme-rdma"),
        (("iser", "nvme-rdma"), "ro", "iser"),
    ],
)
def test_who_does_not_say_gets_rdma_where_nothing_else_is_offered(
    db: Database, offered: tuple[str, ...], mode: str, protocol: str
) -> None:
    known = db.write_now(lambda conn: site(conn, ("local", *offered)))
    connector = {"host": "compute7", "initiator": IQN, "nqn": "nqn.2026-01.org.x:c"}
    wanted = Wanted(known, instance_id=new_id(), connector=connector, mode=mode, owner="compute")
    attachment, _ = db.write_now(lambda conn: reserve(conn, REQUESTER, volumes.get(conn, known), wanted))
    assert attachment.transport == protocol


@pytest.mark.parametrize(
    ("protocols", "facts"),
    [
        (("local",), {}),
        (("local", "iscsi"), {"capabilities": ()}),
        (("local", "iscsi"), {"initiator_iqn": None}),
        (("local", "nvme-tcp"), {}),
    ],
)
def test_no_transport_is_said_before_anything_is_done(
    db: Database, protocols: tuple[str, ...], facts: dict[str, Any]
) -> None:
    known = db.write_now(lambda conn: site(conn, protocols, **facts))
    with pytest.raises(NoTransport, match="no transport reaches it from host away"):
        db.write_now(lambda conn: accept_attach(conn, REQUESTER, known, "away"))
    assert db.read_now(lambda conn: volumes.get(conn, known).status) == "available"


def test_an_agent_of_an_older_release_can_not_export(db: Database) -> None:
    def old(conn: Connection) -> str:
        host(conn, "home", ("local", "iscsi"), job_kinds=("attachment.apply",))
        host(conn, "away", capabilities=("iscsi",), initiator_iqn=IQN)
        return volume(conn)

    known = db.write_now(old)
    with pytest.raises(HostTooOld):
        db.read_now(lambda conn: chosen(conn, known))


def test_chap_secrets_are_the_same_each_time_and_of_letters_and_digits(db: Database) -> None:
    one = db.write_now(lambda conn: chap_secret(conn, KEYS, "a"))
    again_ = db.write_now(lambda conn: chap_secret(conn, KeyStore(Kek(b"k" * 32)), "a"))
    assert one.value() == again_.value()
    assert one.value() != db.write_now(lambda conn: chap_secret(conn, KEYS, "b")).value()
    assert one.value().isalnum()
    assert len(one.value()) >= 12
    assert db.read_now(lambda conn: KEYS.listing(conn, None)) == []
    new = Kek(b"n" * 32)
    db.write_now(lambda conn: KEYS.rotate(conn, new))
    assert db.write_now(lambda conn: chap_secret(conn, KeyStore(new), "a")).value() == one.value()


def test_a_chap_user_has_the_secret_of_its_attachment(db: Database) -> None:
    def secret(user: str) -> bytes:
        return db.write_now(lambda conn: chap_secret(conn, KEYS, user)).value()

    for attachment in ("0b11a111-2222-4333-8444-555555555555", "ab11a111-2222-4333-8444-555555555555"):
        assert secret(user_of(attachment)) == secret(attachment)


def test_the_told_set_is_complete_and_told_again_as_it_was(db: Database) -> None:
    known = db.write_now(site)
    operation, attachment = db.write_now(lambda conn: accept_attach(conn, REQUESTER, known, "away", mode="ro"))
    workflow = attach_workflow(KEYS)
    stored, todo = db.write_now(lambda conn: advance(conn, workflow, operation))
    assert todo is not None
    assert todo.call is not None
    told = todo.call.args
    assert isinstance(told, ExportApply)
    assert todo.call.host_id == "home"
    (one,) = told.wanted
    assert (one.attachment_id, one.protocol, one.initiator, one.mode, one.auth) == (
        attachment.id, "iscsi", IQN, "ro", "chap",
    )  # fmt: skip
    assert todo.call.secrets.keys() == {f"chap.{attachment.id}"}
    assert "value" not in str(stored.steps)
    # A coordinator that takes over posts the same job; the next attempt tells a newer set.
    taken, again_ = db.write_now(lambda conn: advance(conn, workflow, dataclasses.replace(stored)))
    assert again_ is not None
    assert again_.call is not None
    assert (again_.key, again_.call.args) == (todo.key, told)
    step = workflow.step("export")
    assert isinstance(step, JobStep)
    _, later = db.write_now(lambda conn: again(conn, workflow, taken, step, None))
    assert later is not None
    assert later.call is not None
    newer = later.call.args
    assert isinstance(newer, ExportApply)
    assert newer.generation.sequence > told.generation.sequence
    without = db.write_now(lambda c: export_call(c, KEYS, volumes.get(c, known), without=attachment.id))
    assert without is not None
    assert isinstance(without.args, ExportApply)
    assert without.args.wanted == ()
    assert connection_of(stored, "export", attachment.id) is None


ACCESS = RbdAccess(
    cluster_name="ceph", pool="volumes", image_prefix="byv-", user="brickyard",
    monitors=(("192.0.2.1", 6789), ("2001:db8::1", 6790)), secret_uuid="457eb676-33da-42ec-9a8c-9293d545c337",
)  # fmt: skip


def in_ceph(conn: Connection) -> str:
    host(conn, "home", ("rbd",), rbd=ACCESS)
    return volume(conn)


def test_a_volume_in_a_cluster_is_told_to_anybody_in_the_words_of_its_clients(db: Database) -> None:
    known = db.write_now(in_ceph)
    connector = {"host": "compute7", "initiator": IQN}
    wanted = Wanted(known, instance_id=new_id(), connector=connector, owner="compute")
    attachment, work = db.write_now(lambda conn: reserve(conn, REQUESTER, volumes.get(conn, known), wanted))
    assert work is None
    info = attachment.connection_info
    assert {key: info[key] for key in ("driver_volume_type", "name", "hosts", "ports", "auth_username")} == {
        "driver_volume_type": "rbd", "name": f"volumes/byv-{known}", "hosts": ["192.0.2.1", "2001:db8::1"],
        "ports": ["6789", "6790"], "auth_username": "brickyard",
    }  # fmt: skip
    assert (info["secret_type"], info["secret_uuid"], info["auth_enabled"]) == ("ceph", ACCESS.secret_uuid, True)
    assert "keyring" not in info


@pytest.mark.parametrize("name", ["home", "away"])
def test_no_host_of_ours_attaches_a_volume_in_a_cluster(db: Database, name: str) -> None:
    known = db.write_now(in_ceph)
    db.write_now(lambda conn: host(conn, "away", capabilities=("iscsi",), initiator_iqn=IQN))
    with pytest.raises(OnlyInCluster) as caught:
        db.write_now(lambda conn: accept_attach(conn, REQUESTER, known, name))
    assert f"volumes/byv-{known}" in caught.value.remedy
    assert db.read_now(lambda conn: volumes.get(conn, known).status) == "available"


FSID = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize("name", ["home", "away"])
def test_hosts_with_a_key_of_the_cluster_reach_it_by_themselves(db: Database, name: str) -> None:
    def known_there(conn: Connection) -> str:
        host(conn, "home", ("rbd",), rbd=ACCESS.model_copy(update={"fsid": FSID}), capabilities=("rbd",))
        host(conn, "away", capabilities=("iscsi", "rbd"), initiator_iqn=IQN)
        return volume(conn)

    known = db.write_now(known_there)
    there, which = db.read_now(lambda conn: (volumes.get(conn, known), fleet.get(conn, name)))
    for mode in ("rw", "ro"):
        found = db.read_now(lambda conn, mode=mode: transports.choose(conn, there, which, mode))  # type: ignore[misc]
        assert found == transports.Transport("rbd", f"host.{name}")
    _, attachment = db.write_now(lambda conn: accept_attach(conn, REQUESTER, known, name))
    call = db.write_now(lambda conn: export_call(conn, KEYS, volumes.get(conn, known)))
    assert call is not None
    assert isinstance(call.args, ExportApply)
    assert [(one.protocol, one.attachment_id, one.auth) for one in call.args.wanted] == [("rbd", attachment.id, "none")]


def test_an_agent_that_can_not_say_which_cluster_it_is_is_too_old(db: Database) -> None:
    known = db.write_now(in_ceph)
    db.write_now(lambda conn: host(conn, "away", capabilities=("rbd",)))
    with pytest.raises(HostTooOld):
        db.read_now(lambda conn: chosen(conn, known))
