"""The real cryptsetup as the judge of our headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.luks import header
from agent.luks.errors import WrongSecret
from agent.luks.model import Secret, passphrase
from agent.luks.payload import encrypting
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from agent.wire.jobs import WireSecret

_NO_PERMISSION = 2


async def verify_opens(path: Path, secret: Secret) -> None:
    """Check that cryptsetup opens the header of `path` with the secret; raises WrongSecret. No device is made."""
    if not opens(path, passphrase(secret)):
        raise WrongSecret(what="the volume")


def opens(path: Path, key: bytes) -> bool:
    """Whether cryptsetup opens the header of `path` with this passphrase."""
    argv = ["cryptsetup", "open", "--test-passphrase", "--batch-mode", "--disable-locks", "--type", "luks"]
    done = subprocess.run(
        [*argv, "--readonly", "--key-file", "-", str(path)],
        input=key, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode in {0, _NO_PERMISSION}, done.stderr
    return done.returncode == 0


def write(path: Path, clear: bytes, secret: WireSecret | None) -> None:
    """Give a volume this content from its beginning, through its encryption if it has one."""
    with path.open("r+b") as file:
        offset = 0
        if secret is not None:
            window = whole_file(file.fileno())
            opened = unlock(window, header.read(window), passphrase(Secret(secret.type, secret.value())))
            data = bytearray(clear)
            encrypting(opened)(memoryview(data), 0)
            clear, offset = bytes(data), opened.header.details.payload_offset
        file.seek(offset)
        file.write(clear)


def read(path: Path, size: int, secret: WireSecret | None) -> bytes:
    """The first clear bytes of a volume, through its encryption if it has one."""
    with path.open("rb") as file:
        if secret is None:
            return file.read(size)
        window = whole_file(file.fileno())
        opened = unlock(window, header.read(window), passphrase(Secret(secret.type, secret.value())))
        return opened.decrypt(window.read(opened.header.details.payload_offset, size), 0)
