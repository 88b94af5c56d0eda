"""os-retype where the data stay where they are: another type for the same pool.

One transaction: nothing on a host changes, so there is nothing to wait for. What would need the data to be moved or
rewritten is refused by name.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid, Permanent
from coordinator.quota import limits
from coordinator.scheduler import placement
from coordinator.state import types
from coordinator.state.transition import move

_ENCRYPTION = ("provider", "cipher", "key_size", "control_location")


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
    hint = "Its data would have to be rewritten; make a new volume of that type and copy what is inside."


class InUse(Permanent):
    code = "retype.in-use"
    status = 400
    sentence = "Invalid volume: Retype of the in-use volume {volume} can not change {what}."
    hint = "Detach it first."


def retype(conn: Connection, volume: Row[Any], name: str) -> Row[Any]:
    """Give the volume the type `name` (or id) that its project may see; returns the new row.

    Raises SameType, NeedsMigration, ChangesEncryption, InUse, TransitionRefused (400), NotFound, OverQuota (413).
    """
    wanted = types.find(conn, name, volume.project_id)
    if wanted.id == volume.volume_type_id:
        raise SameType(type=name)
    specs = types.extra_specs(conn, wanted.id)
    _check_encryption(conn, volume, wanted)
    multiattach = is_multiattach(specs)
    if volume.encryption_key_id is not None and multiattach:
        raise Invalid(reason="Invalid input received: a volume can not be both encrypted and multiattach.")
    if volume.status == "in-use":
        _check_in_use(conn, volume, wanted, multiattach=multiattach)
    if volume.pool_id is not None:
        missing = placement.lacking(conn, volume.pool_id, specs)
        if missing is not None:
            raise NeedsMigration(volume=volume.id, type=wanted.name, reason=f"{volume.pool_id} {missing}")
    limits.check_type(conn, volume.project_id, wanted.name, volumes=1, gigabytes=volume.size)
    return move(conn, "volume", volume.id, "retype", volume_type_id=wanted.id, multiattach=multiattach)


def is_multiattach(specs: dict[str, str]) -> bool:
    """Whether volumes of a type with these extra specs can be attached more than once."""
    return specs.get("multiattach", "").strip().lower() == "<is> true"


def _check_in_use(conn: Connection, volume: Row[Any], wanted: Row[Any], *, multiattach: bool) -> None:
    if multiattach != volume.multiattach:
        raise InUse(volume=volume.id, what="multiattach")
    present = types.get(conn, volume.volume_type_id) if volume.volume_type_id else None
    if wanted.qos_specs_id != (present.qos_specs_id if present is not None else None):
        raise InUse(volume=volume.id, what="front-end QoS specs")


def _check_encryption(conn: Connection, volume: Row[Any], wanted: Row[Any]) -> None:
    present, other = types.encryption(conn, volume.volume_type_id), types.encryption(conn, wanted.id)
    if present is None and other is None and volume.encryption_key_id is None:
        return
    if present is None or other is None:
        word = "is not encrypted" if other is None else "is encrypted"
        raise ChangesEncryption(volume=volume.id, type=wanted.name, reason=f"{wanted.name} {word}")
    differing = [name for name in _ENCRYPTION if getattr(present, name) != getattr(other, name)]
    if differing:
        raise ChangesEncryption(volume=volume.id, type=wanted.name, reason=", ".join(differing))
