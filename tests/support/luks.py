"""The real cryptsetup as the judge of our headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.luks.errors import WrongSecret
from agent.luks.model import Secret, passphrase

_NO_PERMISSION = 2


async def verify_opens(path: Path, secret: Secret) -> None:
    """Check that cryptsetup opens the header of `path` with the secret; raises WrongSecret. No device is made."""
    argv = ["cryptsetup", "open", "--test-passphrase", "--batch-mode", "--disable-locks", "--type", "luks"]
    done = subprocess.run(
        [*argv, "--readonly", "--key-file", "-", str(path)],
        input=passphrase(secret), capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode == _NO_PERMISSION:
        raise WrongSecret(what="the volume")
    assert done.returncode == 0, done.stderr
