"""os-retype: another type for the same pool.

Where the data stay as they are it is one transaction: nothing on a host changes, so there is nothing to wait for. Where
only the encryption differs the data are written anew by an operation, if the caller allows that. What would need the
data to be moved is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid, Permanent
from coordinator.keys.store import KeyStore
from coordinator.operations import encryption, fitting
from coordinator.operations.accept import Requester
from coordinator.operations.recrypt_volume import NewType, accept_recrypt
from coordinator.quota import limits
from coordinator.scheduler.placement import Scheduler
from coordinator.state import services, types
from coordinator.state.operations import Operation
from coordinator.state.transition import move

_ENCRYPTION = ("encryption_format", "encryption_cipher", "encryption_key_size")


class SameType(Invalid):
    code = "retype.same-type"
    sentence = "Invalid input received: New volume_type same as original: {type}."


class NeedsMigration(Permanent):
    code = "retype.needs-migration"
    status = 400
    sentence = "Volume {volume} can not become {type} where it is: {reason}."
    hint = (
        "Its data would have to move, which this release does not do; copy it: "
        "openstack volume create --source {volume} --type {type} NAME."
    )


class ChangesEncryption(Permanent):
    code = "retype.changes-encryption"
    status = 400
    sentence = "Volume {volume} can not become {type}: the encryption of the two types differs ({reason})."
    hint = "Allow its data to be written anew: openstack volume set --type T --migration-policy on-demand {volume}."


class InUse(Permanent):
    code = "retype.in-use"
    status = 400
    sentence = "Invalid volume: Retype of the in-use volume {volume} can not change {what}."
    hint = "Detach it first."


@dataclass(frozen=True, slots=True)
class Wanted:
    """The type's name or id, and whether the data may be written anew for it."""

    name: str
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Means:
    """Who is asked for keys, and whether the volume may stay where it is."""

    keys: KeyStore
    scheduler: Scheduler


def retype(
    conn: Connection, requester: Requester, means: Means, volume: Row[Any], wanted: Wanted
) -> tuple[Operation | None, bool]:
    """Give the volume a type that its project may see; the operation when one is needed, and whether it is multiattach.

    Raises SameType, NeedsMigration, ChangesEncryption, InUse, TransitionRefused (400), NotFound, OverQuota (413).
    """
    services.check_thawed(conn, "volume", volume.id)
    row = types.find(conn, wanted.name, volume.project_id)
    if row.id == volume.volume_type_id:
        raise SameType(type=wanted.name)
    specs = types.extra_specs(conn, row.id)
    columns, differs = _encryption(conn, volume, row)
    if differs and not wanted.on_demand:
        raise ChangesEncryption(volume=volume.id, type=row.name, reason=differs)
    multiattach = is_multiattach(specs)
    if columns is not None and multiattach:
        raise Invalid(reason="Invalid input received: a volume can not be both encrypted and multiattach.")
    if volume.status == "in-use":
        _check_in_use(conn, volume, row, multiattach=multiattach)
    if volume.pool_id is not None:
        unfit = means.scheduler.unfit(conn, fitting.about(conn, volume, "retype_volume", 0, type_id=row.id))
        if unfit is not None:
            raise NeedsMigration(volume=volume.id, type=row.name, reason=f"{volume.pool_id} {unfit}")
    limits.check_type(conn, volume.project_id, row.name, volumes=1, gigabytes=volume.size)
    if not differs:
        move(conn, "volume", volume.id, "retype", volume_type_id=row.id, multiattach=multiattach)
        return None, multiattach
    if multiattach != volume.multiattach:
        raise Invalid(reason="Invalid input received: encryption and multiattach can not be changed in one step.")
    return accept_recrypt(conn, requester, means.keys, volume, NewType(row.id, columns)), multiattach


def is_multiattach(specs: dict[str, str]) -> bool:
    """Whether volumes of a type with these extra specs can be attached more than once."""
    return specs.get("multiattach", "").strip().lower() == "<is> true"


def _check_in_use(conn: Connection, volume: Row[Any], wanted: Row[Any], *, multiattach: bool) -> None:
    if multiattach != volume.multiattach:
        raise InUse(volume=volume.id, what="multiattach")
    present = types.get(conn, volume.volume_type_id) if volume.volume_type_id else None
    if wanted.qos_specs_id != (present.qos_specs_id if present is not None else None):
        raise InUse(volume=volume.id, what="front-end QoS specs")


def _encryption(conn: Connection, volume: Row[Any], wanted: Row[Any]) -> tuple[dict[str, Any] | None, str]:
    """The encryption columns that the type asks for, and in what the volume's own differ from them."""
    columns = encryption.of_type(conn, wanted.id, wanted.name)
    if columns is None:
        return None, f"{wanted.name} is not encrypted" if volume.encryption_key_id is not None else ""
    if volume.encryption_key_id is None:
        return columns, f"{wanted.name} is encrypted"
    differing = [name.removeprefix("encryption_") for name in _ENCRYPTION if getattr(volume, name) != columns[name]]
    return columns, ", ".join(differing)
