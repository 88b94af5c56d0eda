"""Volumes in Ceph as their consumers see them: QEMU as a host of Nova runs it, by librbd. No device is made."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import ceph
from tests.support.images import MIB, qemu_img


@dataclass
class Pool:
    """`folder` is for files of the moment. `key` is what opens a volume's encryption; None: it has none."""

    cluster: ceph.Cluster
    folder: Path

    def read(self, volume_id: str, size: int, key: bytes | None) -> bytes:
        """Its first clear bytes."""
        secret, opened = self._opened(volume_id, key)
        try:
            qemu_img("dd", *secret, "--image-opts", "-O", "raw", "bs=1M", f"count={-(-size // MIB)}",
                     f"if={opened}", f"of={self._out}")  # fmt: skip
            return self._out.read_bytes()[:size]
        finally:
            self._tidy()

    def write(self, volume_id: str, content: bytes, key: bytes | None) -> None:
        """Put this at its beginning."""
        self._out.write_bytes(content)
        secret, opened = self._opened(volume_id, key)
        source = f"driver=raw,file.filename={self._out}"
        try:
            qemu_img("convert", "-n", *secret, "--image-opts", source, "--target-image-opts", opened)
        finally:
            self._tidy()

    def usable(self, volume_id: str, key: bytes | None) -> int:
        """Bytes that whoever opens it gets."""
        secret, opened = self._opened(volume_id, key)
        try:
            told = self._qemu_img("info", *secret, "--output", "json", "--image-opts", opened)
        finally:
            self._tidy()
        assert told.returncode == 0, told.stderr
        return int(json.loads(told.stdout)["virtual-size"])

    def opens(self, volume_id: str, key: bytes) -> bool:
        """Whether QEMU opens its encryption with this passphrase."""
        secret, opened = self._opened(volume_id, key)
        try:
            told = self._qemu_img("dd", *secret, "--image-opts", "-O", "raw", "bs=512", "count=1", f"if={opened}",
                                  f"of={self._out}")  # fmt: skip
        finally:
            self._tidy()
        assert told.returncode == 0 or "Invalid password" in told.stderr, told.stderr
        return told.returncode == 0

    def raw(self, image: str, size: int = 16 * MIB) -> bytes:
        """The first bytes of an image of the pool as they lie there."""
        command = ["rbd", "--conf", str(self.cluster.conf), "export", "--no-progress", f"{ceph.POOL}/{image}", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as export:
            assert export.stdout is not None
            data = export.stdout.read(size)
            export.kill()
        return data

    def about(self, image: str) -> dict[str, Any]:
        return dict(json.loads(self.cluster.rbd("info", "--format", "json", f"{ceph.POOL}/{image}")))

    def names(self) -> set[str]:
        return set(self.cluster.rbd("ls", ceph.POOL).split())

    def thrown(self) -> list[dict[str, Any]]:
        """What lies in the trash."""
        return list(json.loads(self.cluster.rbd("trash", "ls", "--format", "json", ceph.POOL)))

    def removed(self, image: str) -> None:
        """Take an image away as an operator would, once whoever died is forgotten."""
        deadline = time.monotonic() + 120
        while json.loads(self.cluster.rbd("status", "--format", "json", f"{ceph.POOL}/{image}"))["watchers"]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        self.cluster.rbd("rm", "--no-progress", f"{ceph.POOL}/{image}")

    @property
    def _out(self) -> Path:
        return self.folder / "consumed"

    @property
    def _secret(self) -> Path:
        return self.folder / "secret"

    def _qemu_img(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["qemu-img", *argv], capture_output=True, text=True, check=False, timeout=300)

    def _opened(self, volume_id: str, key: bytes | None) -> tuple[list[str], str]:
        where = {"driver": "rbd", "pool": ceph.POOL, "image": f"byv-{volume_id}", "conf": str(self.cluster.conf)}
        below = ",".join(f"file.{name}={value}" for name, value in where.items())
        if key is None:
            return [], f"driver=raw,{below}"
        self._secret.write_bytes(key)
        return ["--object", f"secret,id=s,file={self._secret}"], f"driver=luks,key-secret=s,{below}"

    def _tidy(self) -> None:
        for path in (self._out, self._secret):
            with suppress(FileNotFoundError):
                path.unlink()


def backend_table(cluster: ceph.Cluster, folder: Path, **more: object) -> str:
    """The lines of a back end of the agent's configuration, with a keyring in `folder` that any agent reads."""
    cluster.root.chmod(0o755)
    keyring = folder / "keyring"
    keyring.write_text(cluster.keyring.read_text())
    keyring.chmod(0o640)
    os.chown(keyring, *ceph.agent_account())
    table = {
        "driver": "rbd", "pool": ceph.POOL, "conf": str(cluster.conf), "keyring": str(keyring),
        "work_dir": f"{folder}/work", "deadline_s": 300, **more,
    }  # fmt: skip
    return "[backends.ceph]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
