"""The real cryptsetup as the judge of our headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.luks.errors import WrongSecret
from agent.luks.model import Secret, passphrase

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
