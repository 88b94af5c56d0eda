"""The catalog: who sees and changes what, lists, and what a volume learns of an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.images import catalog
from coordinator.images.client import LocalImages
from coordinator.images.errors import (
    ImageDeactivated,
    ImageHasNoData,
    ImageInvalid,
    ImageKeyUnusable,
    ImageNotYours,
    ImageProtected,
    NoSuchImage,
    PublicNeedsAdmin,
)
from coordinator.keys.kek import Kek
from coordinator.keys.store import KeyStore
from coordinator.state import images as rows
from coordinator.state import keys as key_rows
from coordinator.state.database import Database
from coordinator.state.errors import TransitionRefused
from coordinator.state.images import Filters, Page
from coordinator.state.transition import move
from tests.unit.coordinator.images.support import ADMIN, OTHER, OWNER, activate, database, host, image


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = database(tmp_path)
    yield made
    made.close()


def _key(db: Database, project: str = "p1", type: str = "passphrase") -> str:
    store = KeyStore(Kek.generate())
    return db.write_now(lambda conn: store.create(conn, project_id=project, user_id="u", type=type, value=b"secret"))


def _list(db: Database, limit: int = 100, marker: str | None = None, **filters: Any) -> list[str]:
    page = Page(limit, marker)
    return [found.row.name for found in db.read_now(lambda conn: catalog.listing(conn, Filters(**filters), page))]


def test_a_new_image_is_queued_private_and_keeps_its_properties(db: Database) -> None:
    made = image(db, os_distro="debian", tags=["a", "b", "a"], min_disk=3)
    found = db.read_now(lambda conn: catalog.show(conn, OWNER, made.row.id))
    assert (found.row.status, found.row.visibility, found.row.tags) == ("queued", "private", ["a", "b"])
    assert (found.row.min_disk, dict(found.properties)) == (3, {"os_distro": "debian"})


@pytest.mark.parametrize(
    "values",
    [
        {"disk_format": "vmdk"},
        {"container_format": "ova"},
        {"visibility": "everyone"},
        {"min_disk": -1},
        {"min_ram": True},
        {"protected": "yes"},
        {"name": "x" * 256},
        {"tags": "one"},
        {"tags": ["x" * 256]},
        {"status": "active"},
        {"owner": "p9"},
        {"os_distro": 7},
        {"os_decrypt_size": "many"},
        {"os_encrypt_format": "GPG"},
        {"os_encrypt_key_id": "not-an-id"},
        {"os_encrypt_key_deletion_policy": "perhaps"},
        {"bad key": "x"},
        {f"p{i}": "x" for i in range(200)},
        {"id": "UPPER"},
    ],
)
def test_what_an_image_can_not_be_is_refused(db: Database, values: dict[str, Any]) -> None:
    with pytest.raises(ImageInvalid):
        image(db, **values)
    assert _list(db) == []


def test_who_sees_what(db: Database) -> None:
    private, public = image(db, name="private"), image(db, ADMIN, name="public", visibility="public")
    community = image(db, name="community", visibility="community")
    with pytest.raises(NoSuchImage):
        db.read_now(lambda conn: catalog.show(conn, OTHER, private.row.id))
    for seen in (public, community):
        db.read_now(lambda conn, seen=seen: catalog.show(conn, OTHER, seen.row.id))
    assert _list(db, project_id="p2") == ["public"]
    assert _list(db, project_id="p2", visibility="community") == ["community"]
    assert set(_list(db, project_id="p1")) == {"private", "public", "community"}
    assert set(_list(db)) == {"private", "public", "community"}


def test_only_the_owner_or_an_administrator_changes(db: Database) -> None:
    made = image(db, visibility="community")
    patch = [{"op": "replace", "path": "/name", "value": "new"}]
    with pytest.raises(ImageNotYours):
        db.write_now(lambda conn: catalog.update(conn, OTHER, made.row.id, patch))
    with pytest.raises(ImageNotYours):
        db.write_now(lambda conn: catalog.deletable(conn, OTHER, made.row.id))
    assert db.write_now(lambda conn: catalog.update(conn, OWNER, made.row.id, patch)).row.name == "new"
    assert db.write_now(lambda conn: catalog.update(conn, ADMIN, made.row.id, patch)).row.name == "new"


def test_only_an_administrator_publishes(db: Database) -> None:
    with pytest.raises(PublicNeedsAdmin):
        image(db, visibility="public")
    made = image(db)
    patch = [{"op": "replace", "path": "/visibility", "value": "public"}]
    with pytest.raises(PublicNeedsAdmin):
        db.write_now(lambda conn: catalog.update(conn, OWNER, made.row.id, patch))
    assert db.write_now(lambda conn: catalog.update(conn, ADMIN, made.row.id, patch)).row.visibility == "public"


def test_a_protected_image_is_kept(db: Database) -> None:
    made = image(db, protected=True)
    with pytest.raises(ImageProtected):
        db.write_now(lambda conn: catalog.deletable(conn, OWNER, made.row.id))


def test_formats_are_fixed_once_there_are_data(db: Database) -> None:
    made = image(db)
    activate(db, made.row.id)
    patch = [{"op": "replace", "path": "/disk_format", "value": "qcow2"}]
    with pytest.raises(ImageInvalid, match="disk_format"):
        db.write_now(lambda conn: catalog.update(conn, OWNER, made.row.id, patch))


def test_a_deactivated_image_is_read_by_administrators_alone_until_it_is_active_again(db: Database) -> None:
    made = image(db, visibility="community")

    def turned(caller: catalog.Caller, *, active: bool) -> None:
        db.write_now(lambda conn: catalog.set_active(conn, caller, made.row.id, active=active))

    with pytest.raises(ImageHasNoData, match="queued"):
        turned(OWNER, active=False)
    activate(db, made.row.id, host_id="a")
    with pytest.raises(ImageNotYours):
        turned(OTHER, active=False)
    for _ in range(2):
        turned(OWNER, active=False)
    row = db.read_now(lambda conn: catalog.show(conn, OWNER, made.row.id)).row
    assert row.status == "deactivated"
    catalog.readable(ADMIN, row)
    for caller in (OWNER, OTHER):
        with pytest.raises(ImageDeactivated):
            catalog.readable(caller, row)
    for _ in range(2):
        turned(ADMIN, active=True)
    catalog.readable(OTHER, db.read_now(lambda conn: catalog.show(conn, OWNER, made.row.id)).row)
    turned(OWNER, active=False)
    assert db.write_now(lambda conn: move(conn, "image", made.row.id, "delete")).status == "deleting"


def test_an_upload_begins_once(db: Database) -> None:
    made = image(db)
    db.write_now(lambda conn: move(conn, "image", made.row.id, "upload") and None)
    with pytest.raises(TransitionRefused):
        db.write_now(lambda conn: move(conn, "image", made.row.id, "upload") and None)


def test_lists_page_through_everything_once_in_every_order(db: Database) -> None:
    for name in ("b", None, "a", "c", None, "b"):
        image(db, name=name)
    everything = db.read_now(lambda conn: catalog.listing(conn, Filters(), Page(100)))
    for key in rows.SORT_KEYS:
        for direction in ("asc", "desc"):
            seen: list[str] = []
            marker = None
            while True:
                page = Page(2, marker, ((key, direction),))
                part = db.read_now(lambda conn, page=page: catalog.listing(conn, Filters(), page))
                if not part:
                    break
                seen += [found.row.id for found in part]
                marker = seen[-1]
            assert sorted(seen) == sorted(found.row.id for found in everything), (key, direction)


def test_lists_are_narrowed(db: Database) -> None:
    image(db, name="one", tags=["x", "y"], os_distro="debian")
    two = image(db, name="two", tags=["x"], os_distro="suse", disk_format="qcow2")
    activate(db, two.row.id, size=5000)
    assert _list(db, tags=("x", "y")) == ["one"]
    assert _list(db, tags=('x"',)) == []
    assert _list(db, properties={"os_distro": "suse"}) == ["two"]
    assert _list(db, equal={"disk_format": "qcow2", "status": "active"}) == ["two"]
    assert _list(db, size_min=5000, size_max=5000) == ["two"]
    assert _list(db, owner="p2") == []
    with pytest.raises(ImageInvalid):
        _list(db, marker="nowhere")


def test_a_list_begins_behind_no_image_that_its_reader_can_not_see(db: Database) -> None:
    """Else the place of his own images beside it would tell of its name and size."""
    hidden, shared = image(db, name="secret"), image(db, name="open", visibility="community")
    for name in ("a", "z"):
        image(db, caller=OTHER, name=name)
    project = OTHER.project_id
    for marker in (hidden.row.id, "nowhere"):
        with pytest.raises(ImageInvalid):
            _list(db, marker=marker, project_id=project)
    assert _list(db, marker=shared.row.id, project_id=project) == []
    assert _list(db, marker=hidden.row.id) == []


def test_a_plain_image_for_a_volume(db: Database) -> None:
    made = image(db, os_distro="debian", min_disk=2)
    activate(db, made.row.id, size=77, virtual_size=4096, os_hash_algo="sha256", os_hash_value="ab" * 32, host_id="h")
    found = db.read_now(lambda conn: catalog.image_for_volume(conn, made.row.id, "p1", False))
    assert (found.status, found.size, found.virtual_size, found.min_disk) == ("active", 77, 4096, 2)
    assert (found.encrypted, found.key_id, found.host_id, found.sha256) == (False, None, "h", "ab" * 32)
    assert found.properties["os_distro"] == "debian"
    assert found.properties["image_id"] == made.row.id
    assert all(isinstance(value, str) for value in found.properties.values())


@pytest.mark.parametrize(
    ("key", "policy"),
    [
        ("os_encrypt_key_id", "os_encrypt_key_deletion_policy"),
        ("cinder_encryption_key_id", "cinder_encryption_key_deletion_policy"),
    ],
)
def test_an_encrypted_image_for_a_volume(db: Database, key: str, policy: str) -> None:
    secret = _key(db)
    made = image(
        db, disk_format="qcow2", visibility="community", os_encrypt_format="LUKSv1", os_decrypt_size="2097152",
        **{key: secret, policy: "on_image_deletion"},
    )  # fmt: skip
    found = db.read_now(lambda conn: catalog.image_for_volume(conn, made.row.id, "p2", False))
    assert (found.encrypted, found.key_id, found.delete_key, found.decrypt_size) == (True, secret, True, 2097152)
    assert not [name for name in found.properties if "encrypt" in name or "decrypt" in name]
    assert db.read_now(lambda conn: key_rows.used_by(conn, secret)) == ("image", made.row.id)


def test_another_projects_secret_can_not_be_named(db: Database) -> None:
    theirs = _key(db, "p2")
    with pytest.raises(ImageKeyUnusable):
        image(db, os_encrypt_key_id=theirs)
    made = image(db)
    patch = [{"op": "add", "path": "/os_encrypt_key_id", "value": theirs}]
    with pytest.raises(ImageKeyUnusable):
        db.write_now(lambda conn: catalog.update(conn, OWNER, made.row.id, patch))
    assert db.read_now(lambda conn: key_rows.used_by(conn, theirs)) is None


def test_an_encrypted_image_without_a_usable_secret_is_refused(db: Database) -> None:
    nameless = image(db, container_format="luks")
    secret = _key(db)
    orphan = image(db, os_encrypt_key_id=secret)
    db.write_now(lambda conn: key_rows.remove(conn, secret))
    for made in (nameless, orphan):
        with pytest.raises(ImageKeyUnusable):
            db.read_now(lambda conn, made=made: catalog.image_for_volume(conn, made.row.id, "p1", False))


async def test_the_client_answers_as_the_catalog_does(db: Database) -> None:
    made = image(db)
    assert (await LocalImages(db).for_volume(made.row.id, OWNER)).id == made.row.id
    with pytest.raises(NoSuchImage):
        await LocalImages(db).for_volume(made.row.id, OTHER)


def test_the_store_is_the_reachable_host_with_most_room(db: Database) -> None:
    assert db.read_now(rows.store_host) is None
    host(db, "full", free=1)
    host(db, "roomy", free=1 << 35)
    host(db, "away", free=1 << 40, reachable=False)
    host(db, "off", free=1 << 40, enabled=False)
    host(db, "none", free=1 << 40, keeps_images=False)
    assert db.read_now(rows.store_host) == "roomy"
