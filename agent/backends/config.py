"""Configuration of the back ends, one model per driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from agent.base.config import Section
from agent.host.lvm import is_plain_name, parsed_name
from agent.wire.results import pool_address


class PlacementSection(Section):
    """What every back end tells the scheduler."""

    cluster_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
        description="Name that all hosts give to a back end that they share (the same folder, under the same name): "
        "each serves its volumes, and the others go on when one is down. Not for LVM.",
    )

    reserved_percent: int = Field(
        0, ge=0, le=99, description="Share of the whole space that is never given to volumes, in percent."
    )
    max_over_subscription: Annotated[float, Field(ge=1.0, le=1000.0)] | Literal["auto"] = Field(
        20.0,
        description="How often a thin pool's space may be promised; `auto` follows what volumes really use.",
    )
    capabilities: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description='Words of your own that volume types can ask for, such as `media = "ssd"`.'
    )
    image_cache: bool = Field(
        False,
        description="Whether images that volumes are made of are kept here once, hidden, and cloned from then on "
        "(the coordinator must be told `images.internal_project`).",
    )
    image_cache_max_gib: int = Field(0, ge=0, description="Most GiB of images kept; 0: no limit.")
    image_cache_max_count: int = Field(0, ge=0, description="Most images kept; 0: no limit.")
    pools: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Several pools of one back end: [backends.NAME.pools.POOL] holds what is different there, at least "
        "the place. One called like the back end has the volumes that this had before it had pools.",
    )
    filter_function: str = Field("", description="Expression that is true for volumes that may be placed here.")
    goodness_function: str = Field("", description="Expression from 0 to 100: how well a volume fits here.")

    def placement(self) -> dict[str, Any]:
        """The same, by the names of `PoolState`."""
        return {name: getattr(self, name) for name in PlacementSection.model_fields if name != "pools"}

    @field_validator("pools")
    @classmethod
    def _flat(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if value:
            raise ValueError("a pool has no pools of its own")
        return value


class FolderConfig(PlacementSection):
    """What all back ends of files have in common."""

    path: Path = Field(description="Folder for the volumes; made when it does not exist. Reflink needs XFS or Btrfs.")
    rate_limit: int | None = Field(
        None,
        ge=65536,
        description="Bytes a second that all copies to this back end move together; default: all.",
    )


class FileBackendConfig(FolderConfig):
    """Volumes as sparse raw files in a folder."""

    driver: Literal["file"] = Field("file", description="Kind of back end: sparse raw files in a folder.")


class LvmBackendConfig(PlacementSection):
    """Volumes as logical volumes of one volume group: thin ones in a pool, or thick ones."""

    driver: Literal["lvm"] = Field(description="Kind of back end: logical volumes of a volume group.")
    group: str = Field(description="Volume group; it must also be allowed in the limits file ([lvm] groups).")
    pool: str | None = Field(None, description="Thin pool in that group; none: thick volumes.")
    create_limit_percent: int = Field(
        90, ge=1, le=100, description="How full of data a thin pool may be for anything new to be made in it."
    )
    metadata_limit_percent: int = Field(
        80, ge=1, le=100, description="How full of metadata a thin pool may be for anything new to be made in it."
    )
    autoextend_percent: int = Field(
        70, ge=1, le=100, description="How full a thin pool may get before space of its group is added; 100: never."
    )
    autoextend_by_percent: int = Field(20, ge=1, le=100, description="How much is added, in percent of the pool.")
    when_full: Literal["error", "queue", "keep"] = Field(
        "error", description="What a full thin pool does with writes; `keep` leaves it as the operator set it."
    )
    wipe: Literal["zero", "discard", "none"] = Field(
        "zero", description="What a thick volume's space gets before it is given back to the group."
    )
    rate_limit: int | None = Field(
        None,
        ge=65536,
        description="Bytes a second that all copies to this back end and its wipes move together; default: all.",
    )

    @field_validator("group", "pool")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and (not is_plain_name(value) or parsed_name(value) is not None):
            raise ValueError(f"{value[:64]!r} is not a name that LVM and Brickyard can use here")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> LvmBackendConfig:
        if self.cluster_name is not None:
            raise ValueError("cluster_name is for folders that hosts share; a volume group belongs to one host")
        if self.autoextend_percent != 100 and self.autoextend_percent >= self.create_limit_percent:
            raise ValueError("autoextend_percent must be below create_limit_percent, or 100")
        return self


class NfsBackendConfig(FolderConfig):
    """Volumes as files on an NFS share that the host has mounted."""

    driver: Literal["nfs"] = Field(description="Kind of back end: files on a mounted NFS share.")
    path: Path = Field(description="Folder on the share: its mount point, or below it.")
    share: str = Field(description="The share that must be mounted there: `server:/export`.", pattern=r"^[^/].*:/.*$")
    deadline_s: float = Field(
        30.0, ge=1, le=600, description="Seconds after which a server that does not answer counts as hung."
    )


class SmbBackendConfig(FolderConfig):
    """Volumes as files on an SMB share that the host has mounted."""

    driver: Literal["smb"] = Field(description="Kind of back end: files on a mounted SMB (CIFS) share.")
    path: Path = Field(description="Folder on the share: its mount point, or below it.")
    share: str = Field(description="The share that must be mounted there: `//server/share`.", pattern=r"^//[^/]+/.+$")
    deadline_s: float = Field(
        30.0, ge=1, le=600, description="Seconds after which a server that does not answer counts as hung."
    )


class RbdBackendConfig(PlacementSection):
    """Volumes as RBD images in a pool of a Ceph cluster."""

    driver: Literal["rbd"] = Field(description="Kind of back end: images in a pool of a Ceph cluster.")
    pool: str = Field(
        description="Pool of the cluster for the volumes of this site alone.", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
    )
    user: str = Field("brickyard", description="Ceph user, without `client.`.", pattern=r"^[A-Za-z0-9_.-]+$")
    conf: Path = Field(Path("/etc/ceph/ceph.conf"), description="The cluster's configuration: where its monitors are.")
    keyring: Path | None = Field(
        None, description="File with the user's key, mode 0600; by default /etc/ceph/ceph.client.USER.keyring."
    )
    secret_uuid: UUID | None = Field(
        None, description="Id of the libvirt secret that holds the key on the hosts of Nova; told with each attachment."
    )
    work_dir: Path = Field(
        Path("/var/lib/brickyard/rbd"), description="Folder of this host where volumes appear while it works on them."
    )
    deadline_s: float = Field(
        30.0, ge=5, le=600, description="Seconds after which a cluster that does not answer counts as hung."
    )
    clone_depth: int = Field(
        5, ge=1, le=16, description="Longest chain of images that share data; what would be longer gets its own copy."
    )
    trash_keep_s: int = Field(
        0, ge=0, description="Seconds for which a deleted volume stays in the trash of the pool before it is removed."
    )

    @property
    def keyring_file(self) -> Path:
        return self.keyring or Path(f"/etc/ceph/ceph.client.{self.user}.keyring")


ShareConfig = NfsBackendConfig | SmbBackendConfig


def by_pool(tables: Any) -> Any:
    """The tables of back ends, with one `BACKEND#POOL` for each pool of those that have several.

    What a pool does not say its back end's table says, own words included.
    """
    if not isinstance(tables, Mapping):
        return tables
    found: dict[str, Any] = {}
    for name, table in tables.items():
        several = _pools_in(name, table)
        if several.keys() & found.keys():
            raise ValueError(f"pool {', '.join(sorted(several.keys() & found.keys()))} is there twice; name one anew")
        found |= several
    return found


def _pools_in(name: str, table: Any) -> dict[str, Any]:
    pools = table.get("pools") if isinstance(table, Mapping) else None
    if not isinstance(pools, Mapping) or not all(isinstance(pool, Mapping) for pool in pools.values()) or not pools:
        return {name: table}
    common = {key: value for key, value in table.items() if key != "pools"}
    found = {}
    for pool, own in pools.items():
        words = {**common.get("capabilities", {}), **own.get("capabilities", {})}
        found[pool_address(name, pool)] = {**common, **own, **({"capabilities": words} if words else {})}
    return found


def _driver(value: Any) -> str:
    found = value.get("driver", "file") if isinstance(value, dict) else getattr(value, "driver", "")
    return str(found)


BackendConfig = Annotated[
    Annotated[FileBackendConfig, Tag("file")]
    | Annotated[LvmBackendConfig, Tag("lvm")]
    | Annotated[NfsBackendConfig, Tag("nfs")]
    | Annotated[SmbBackendConfig, Tag("smb")]
    | Annotated[RbdBackendConfig, Tag("rbd")],
    Discriminator(_driver),
]
"""One model per kind of back end; a table without `driver` is of kind `file`."""
