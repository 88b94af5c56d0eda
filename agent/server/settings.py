"""The agent's configuration file, `/etc/brickyard/agent.toml`, as one model."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from agent.backends.config import (
    BackendConfig,
    FileBackendConfig,
    FolderConfig,
    LvmBackendConfig,
    RbdBackendConfig,
    by_pool,
)
from agent.backends.defaults import BackendDefaults, with_defaults
from agent.base.config import Section
from agent.base.errors import Invalid
from agent.base.ids import checked_name
from agent.base.reload import RELOADED
from agent.base.sections import LogConfig, TestingConfig
from agent.connectors.config import ConnectorsSection
from agent.images.config import ImagesConfig
from agent.privsep.limits import DEFAULT_FILE
from agent.targets.config import TargetsSection

DEFAULT_CONFIG = Path("/etc/brickyard/agent.toml")
DEFAULT_STATE = Path("/var/lib/brickyard")


def _own_name() -> str:
    return socket.gethostname().split(".")[0] or "localhost"


def _plain_name(text: str, noun: str) -> str:
    try:
        return checked_name(text, noun)
    except Invalid as error:
        raise ValueError(str(error).rstrip(".")) from None


class AgentSection(Section):
    """`[agent]`"""

    host: str = Field(
        default_factory=_own_name, description="Name of this host in Brickyard; default: the short host name."
    )
    state_dir: Path = Field(DEFAULT_STATE, description="Journal, identity, locks and spool; must survive a reboot.")
    listen: str = Field("0.0.0.0", description="Address that both ports listen on.")  # noqa: S104
    port: int = Field(8790, ge=1, le=65535, description="Control port; answers coordinators only, by mutual TLS.")
    data_port: int = Field(8791, ge=1, le=65535, description="Port on which hosts fetch and push bytes of volumes.")
    address: str | None = Field(
        None,
        description="Address at which others reach this host; default: the one that enrolment finds.",
    )
    stop_grace_s: float = Field(
        10.0, ge=0, le=600, description="Seconds that quick jobs get to end at a stop; longer ones are resumed later."
    )

    @field_validator("host")
    @classmethod
    def _plain(cls, value: str) -> str:
        return _plain_name(value, "host")

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value


class JobsSection(Section):
    """`[jobs]`"""

    quick: int = Field(32, ge=1, le=1024, description="Quick jobs (create, delete, snapshot, attach) at once.")
    heavy: int = Field(2, ge=1, le=64, description="Jobs that move much data at once.")
    lock_deadline_s: float = Field(
        60.0, gt=0, le=3600, description="Seconds to wait for a tool of an earlier life of the agent to be gone."
    )
    rate_limit: int | None = Field(None, ge=1 << 20, description="Bytes a second that one copy may move; default: all.")


class PrivsepSection(Section):
    """`[privsep]`"""

    user: str = Field("brickyard", description="User that an agent started as root becomes.")
    limits_file: Path = Field(DEFAULT_FILE, description="Root-owned file with the limits of privileged verbs.")


class AgentSettings(Section):
    """Everything that an agent is told. `backends` are by name (`BACKEND#POOL` where one has several pools)."""

    agent: AgentSection = Field(default_factory=AgentSection, description="The host and its ports.")
    backend_defaults: BackendDefaults = Field(
        default_factory=BackendDefaults,
        description="What all back ends have in common that know the key; a back end's own table wins.",
        json_schema_extra=RELOADED,
    )
    backends: dict[str, BackendConfig] = Field(
        default_factory=dict, description="Where volumes live, by name: [backends.NAME].", json_schema_extra=RELOADED
    )
    targets: TargetsSection = Field(
        default_factory=TargetsSection, description="How volumes of this host are offered to other hosts."
    )
    connectors: ConnectorsSection = Field(
        default_factory=ConnectorsSection, description="How volumes of other hosts are reached."
    )
    jobs: JobsSection = Field(default_factory=JobsSection, description="How many jobs run at once.")
    images: ImagesConfig = Field(default_factory=ImagesConfig, description="The image store of the site.")
    privsep: PrivsepSection = Field(default_factory=PrivsepSection, description="Privileges.")
    log: LogConfig = Field(default_factory=LogConfig, description="Log lines.", json_schema_extra=RELOADED)
    testing: TestingConfig = Field(default_factory=TestingConfig, description="Only for tests.")

    @field_validator("backends", mode="before")
    @classmethod
    def _by_pool(cls, value: Any, info: ValidationInfo) -> Any:
        said = info.data.get("backend_defaults")
        return with_defaults(by_pool(value), said.model_dump(exclude_unset=True) if said is not None else {})

    @field_validator("backends")
    @classmethod
    def _names(cls, value: dict[str, BackendConfig]) -> dict[str, BackendConfig]:
        for name in value:
            backend, several, pool = name.partition("#")
            _plain_name(backend, "back end")
            if several:
                _plain_name(pool, "pool")
        return value

    @model_validator(mode="after")
    def _apart(self) -> AgentSettings:
        # A share may hang, and must not be asked here.
        shares = [Path(os.path.normpath(path)) for path in self.roots if path not in self.folders.values()]
        paths = [path.resolve() for path in self.folders.values()] + shares
        for index, one in enumerate(paths):
            for other in paths[index + 1 :]:
                if one == other or one in other.parents or other in one.parents:
                    raise ValueError(f"two back ends share the folder {max(one, other)}; give each its own")
        spaces = [(one.group, one.pool) for one in self.backends.values() if isinstance(one, LvmBackendConfig)]
        for group, pool in spaces:
            if spaces.count((group, pool)) > 1:
                raise ValueError(f"two back ends share {group}{f'/{pool}' if pool else ''}; give each its own pool")
        images = [(one.conf, one.pool) for one in self.backends.values() if isinstance(one, RbdBackendConfig)]
        for conf, pool in images:
            if images.count((conf, pool)) > 1:
                raise ValueError(f"two back ends share the Ceph pool {pool} of {conf}; give each its own pool")
        return self

    @property
    def folders(self) -> dict[str, Path]:
        """The folder of each back end of kind `file`."""
        return {name: one.path for name, one in self.backends.items() if isinstance(one, FileBackendConfig)}

    @property
    def roots(self) -> list[Path]:
        """Where volumes are files, shares included."""
        return [one.path for one in self.backends.values() if isinstance(one, FolderConfig)]

    @property
    def work_dirs(self) -> dict[str, Path]:
        """By back end, where volumes that lie elsewhere are shown as files."""
        return {name: one.work_dir for name, one in self.backends.items() if isinstance(one, RbdBackendConfig)}

    @property
    def groups(self) -> tuple[str, ...]:
        """The volume groups of the back ends."""
        return tuple({one.group: None for one in self.backends.values() if isinstance(one, LvmBackendConfig)})

    @property
    def state_dir(self) -> Path:
        return self.agent.state_dir

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"

    @property
    def journal_file(self) -> Path:
        return self.state_dir / "journal.db"

    @property
    def host_key_file(self) -> Path:
        return self.state_dir / "host.key"

    @property
    def lock_dir(self) -> Path:
        return self.state_dir / "locks"

    @property
    def images_dir(self) -> Path | None:
        """None when this host keeps no images."""
        return self.images.store

    @property
    def spool_dir(self) -> Path:
        return self.images.spool or self.state_dir / "spool"
