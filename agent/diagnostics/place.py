"""Where an agent lives on this host, as the diagnostics need it; filled from the configuration by the commands."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UDEV_RULES = "12-brickyard.rules"
RULES_REMEDY = f"Copy share/brickyard/udev/{UDEV_RULES} to /etc/udev/rules.d and run: udevadm control --reload"
_RULE_FOLDERS = ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")


@dataclass(frozen=True, slots=True)
class Place:
    """Paths of one agent. `backends` maps a name to its folder, `groups` to volume group and thin pool,
    `shares` to driver, folder and what must be mounted there, `ceph` to configuration and keyring. `targets` are
    switched on. `keyring`: with which images of a cluster are mapped.

    `root` is / except in tests.
    """

    host: str
    state_dir: Path
    spool_dir: Path
    user: str
    limits_file: Path
    backends: Mapping[str, Path] = field(default_factory=dict)
    images_dir: Path | None = None
    targets: frozenset[str] = frozenset()
    groups: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    shares: Mapping[str, tuple[str, Path, str]] = field(default_factory=dict)
    ceph: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    keyring: Path | None = None
    root: Path = Path("/")

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"

    @property
    def journal_file(self) -> Path:
        return self.state_dir / "journal.db"

    @property
    def has_udev_rules(self) -> bool:
        return any((self.root / folder / UDEV_RULES).exists() for folder in _RULE_FOLDERS)

    def running(self) -> int | None:
        """The process that holds the state directory; 0 when it can not be told which, None when none does."""
        try:
            fd = os.open(self.state_dir / "agent.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).decode(errors="replace").strip()
            return int(text) if text.isdecimal() else 0
        finally:
            os.close(fd)
        return None
