"""The commands of `brickyard`, and the clients people have, over TLS: trusted when the CA is known, else refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from coordinator.cli.client.credentials import exports

BIN = Path(sys.executable).parent


@dataclass
class Site:
    environment: dict[str, str]
    authority: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / command[0], *command[1:]], env={**self.environment, **environment}, capture_output=True, text=True,
            check=False, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A development site whose API is served with a certificate of a CA of its own."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="brickyard-tls-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        for part in issued.cert_chain_pems:
            part.write_to_path(str(folder / "cert.pem"), append=True)
        for file in folder.glob("*.pem"):
            file.chmod(0o644)
        tls = ["--set", f"api.tls.certificate={folder}/cert.pem", "--set", f"api.tls.key={folder}/key.pem"]
        with (folder / "err").open("w") as errors:
            dev = subprocess.Popen(
                [BIN / "brickyard", "dev", "--state-dir", folder / "site", "--port", "0", *tls],
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        try:
            assert dev.stdout is not None
            assert any(line.strip() == "ready" for line in dev.stdout), (folder / "err").read_text()
            plain = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
            given = exports((folder / "site" / "openrc").read_text())
            assert given["OS_AUTH_URL"].startswith("https://127.0.0.1:")
            yield Site({**plain, **given}, folder / "ca.pem")
        finally:
            dev.terminate()
            dev.wait(60)


def test_a_volume_over_tls(site: Site) -> None:
    trusted = {"OS_CACERT": str(site.authority)}
    made = site.run("brickyard", "volume", "create", "--size", "1", "--wait", "--json", "over-tls", **trusted)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["status"] == "available"
    listed = site.run("openstack", "volume", "list", "-f", "value", "-c", "Name", "-c", "Status", **trusted)
    assert listed.stdout.split() == ["over-tls", "available"], listed.stderr
    gone = site.run("brickyard", "volume", "delete", "--yes", "--wait", "over-tls", **trusted)
    assert gone.returncode == 0, gone.stderr


def test_an_unknown_ca_is_refused_with_a_remedy(site: Site) -> None:
    refused = site.run("brickyard", "volume", "list")
    assert refused.returncode != 0
    assert "certificate" in refused.stderr.lower(), refused.stderr
    assert "OS_CACERT" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
