"""Attachments of volumes that lie on other hosts: a connector below, dm-crypt above. For the handlers alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base.errors import BrickyardError, Conflict
from agent.connectors.base import Cutting
from agent.connectors.registry import connector
from agent.host import sysfs

if TYPE_CHECKING:
    from agent.connectors.base import RemoteDevice
    from agent.jobs.desired import Row
    from agent.wire.jobs import Connection

_PREFIX = "brickyard-"


async def attach(row: Row, connection: Connection, chap: bytes | None, key: bytes | None) -> tuple[RemoteDevice, str]:
    """The proven device, and what its holder uses: the decrypted one where a key is given and dm-crypt is here."""
    found = await connector(connection.protocol).attach(connection, secret=chap)
    if key is None:
        return found, found.device
    from agent.privsep import crypt, mapper
    from agent.privsep.client import call

    if not mapper.dm_crypt_available():
        return found, found.device
    try:
        opened = await call(crypt.crypt_open, found.device, found.diskseq, row.attachment_id, key, row.mode == "ro")
    except BrickyardError:
        with contextlib.suppress(BrickyardError):
            await connector(connection.protocol).detach(connection)
        raise
    return found, str(opened["device"])


async def detach(row: Row, connection: Connection, *, shared: bool, force: bool = False) -> None:
    """Nothing of the attachment is left; the device stays where another attachment of this host uses it (`shared`).

    With `force` whoever has it open is cut off.
    """
    if sysfs.mapper_device(_PREFIX + row.attachment_id) is not None:
        from agent.privsep import crypt
        from agent.privsep.client import call

        try:
            await call(crypt.crypt_close, row.attachment_id)
        except BrickyardError:
            if not force:
                raise
            await call(crypt.crypt_cut, row.attachment_id)
    if shared:
        return
    below = connector(connection.protocol)
    try:
        await below.detach(connection)
    except Conflict:
        if not (force and isinstance(below, Cutting)):
            raise
        await below.cut(connection)
        await below.detach(connection)


async def resize(row: Row, connection: Connection, size: int, key: bytes | None) -> int:
    """Bytes that the holder sees after every layer has followed to `size` bytes of the device."""
    found = await connector(connection.protocol).resize(connection, size)
    mapper = sysfs.mapper_device(_PREFIX + row.attachment_id)
    if mapper is None:
        return found.size
    from agent.jobs.errors import SecretMissing
    from agent.privsep import crypt
    from agent.privsep.client import call

    if key is None:
        raise SecretMissing(kind="attachment.resize", names="volume")
    return await call(crypt.crypt_resize, row.attachment_id, key)


def there(row: Row, connection: Connection, sys: Path = sysfs.SYS) -> bool:
    """Whether the kernel shows all that the row says. Blocking reads."""
    found = connector(connection.protocol).present(connection, sys)
    title = row.device.removeprefix("/dev/mapper/")
    return found is not None and (title == row.device or sysfs.mapper_device(title, sys) is not None)


def paths(connection: Connection, sys: Path = sysfs.SYS) -> tuple[str, ...]:
    """Every path of the volume's device (`/dev/sda`, …); none when it is not here. Blocking reads."""
    found = connector(connection.protocol).present(connection, sys)
    return () if found is None else tuple(f"/dev/{name}" for name in found.paths)
