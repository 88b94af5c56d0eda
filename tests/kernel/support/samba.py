"""A real Samba server of this host, whose shares are mounted as an operator would: the password lies in a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kernel.support.initiator import sh, until

USER, PASSWORD, PORT = "brickyard", "smb-canary", 445
KINDS = {"plain": "ext4", "sharing": "btrfs"}
"""Its shares, and the file systems below them; files of the second one can share data."""
_CONFIG = """[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
disable netbios = yes
smb ports = {port}
server min protocol = SMB3
load printers = no
disable spoolss = yes
passdb backend = tdbsam:{folder}/passdb.tdb
private dir = {folder}
lock directory = {folder}
state directory = {folder}
cache directory = {folder}
pid directory = {folder}
ncalrpc dir = {folder}/rpc
log file = {folder}/log
"""
_SHARE = "[{name}]\npath = {path}\nread only = no\nvalid users = {user}\n"
_MOUNTED = f"uid={USER},gid={USER},file_mode=0600,dir_mode=0700,vers=3.1.1,hard"


class Samba:
    """`start()` until it listens, `stop()`; `pause()` lets it hang with all its processes until `go_on()`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.credentials = folder, folder / "smb.conf", folder / "credentials"
        self.process: subprocess.Popen[bytes] | None = None
        self.config.write_text(_CONFIG.format(port=PORT, folder=folder))
        self.credentials.touch(0o600)
        self.credentials.write_text(f"username={USER}\npassword={PASSWORD}\n")
        twice = f"{PASSWORD}\n{PASSWORD}\n"
        argv = ["smbpasswd", "-c", str(self.config), "-s", "-a", USER]
        subprocess.run(argv, input=twice, text=True, check=True, capture_output=True)

    def share(self, name: str) -> Path:
        """A new share, on a file system of its own."""
        path, disk = self.folder / name, self.folder / f"{name}.disk"
        path.mkdir()
        with disk.open("wb") as out:
            out.truncate(256 << 20)
        sh(f"mkfs.{KINDS[name]} -q {disk} && mount -o loop {disk} {path} && chown {USER}: {path}")
        with self.config.open("a") as config:
            config.write(_SHARE.format(name=name, path=path, user=USER))
            config.write("vfs objects = btrfs\n" if KINDS[name] == "btrfs" else "")
        return path

    def start(self) -> None:
        argv = ["smbd", "--foreground", "--no-process-group", f"--configfile={self.config}"]
        self.process = subprocess.Popen(argv, start_new_session=True)
        until(_listens, 240, "smbd does not listen")

    def stop(self) -> None:
        """As a crash would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def pause(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def mount(self, name: str, point: Path) -> None:
        sh(f"mount -t cifs -o credentials={self.credentials},{_MOUNTED} {source(name)} {point}")


def source(name: str) -> str:
    """What the table of mounts says."""
    return f"//127.0.0.1/{name}"


@contextmanager
def served() -> Iterator[Samba]:
    """It serves one share of each kind."""
    with TemporaryDirectory(prefix="brickyard-smb-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # smbd reaches the shares as the user
        made = Samba(folder)
        paths = [made.share(kind) for kind in KINDS]
        made.start()
        yield made
        made.stop()
        for path in paths:
            sh(f"umount {path}")


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0
