"""Tests of a file share one site; the command itself is started anew for each call."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.cli.client.credentials import exports
from tests.integration.cli.site import BIN, Site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Not below pytest's own folder, which the user that the parts become can not enter."""
    with tempfile.TemporaryDirectory(prefix="brickyard-cli-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        command = [BIN / "brickyard", "dev", "--state-dir", folder / "site", "--port", "0"]
        with (folder / "err").open("w") as errors:
            dev = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        try:
            assert dev.stdout is not None
            for line in dev.stdout:
                if line.strip() == "ready":
                    break
            else:
                pytest.fail((folder / "err").read_text())
            plain = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
            yield Site(folder / "site", {**plain, **exports((folder / "site" / "openrc").read_text())})
        finally:
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(60) == 0
            assert dev.stdout is not None
            dev.stdout.close()
