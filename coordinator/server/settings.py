"""The coordinator's configuration file, `/etc/brickyard/coordinator.toml`, as one model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section
from agent.base.reload import RELOADED
from agent.base.sections import LogConfig, TestingConfig
from coordinator.api.settings import ApiSettings
from coordinator.compute.settings import ComputeSettings
from coordinator.identity.settings import IdentitySettings
from coordinator.images.settings import ImagesSection
from coordinator.keys.settings import KeysSection
from coordinator.notifications.settings import NotificationsSettings
from coordinator.quota.settings import QuotaSettings
from coordinator.scheduler.settings import SchedulerSettings

DEFAULT_CONFIG = Path("/etc/brickyard/coordinator.toml")
DEFAULT_STATE = Path("/var/lib/brickyard-coordinator")


class CoordinatorSection(Section):
    """`[coordinator]`"""

    state_dir: Path = Field(DEFAULT_STATE, description="Database, CA and keys; back it up.")
    listen: str = Field("0.0.0.0", description="Address that the public API listens on.")  # noqa: S104
    port: int = Field(8776, ge=0, le=65535, description="Port of the public API; 0 takes a free one.")
    stop_grace_s: float = Field(5.0, ge=0, description="Seconds that running steps get to end at a stop.")
    parallel: int = Field(64, ge=1, description="Operations that are worked on at once; more wait their turn.")


class StateSection(Section):
    """`[state]`"""

    url: str | None = Field(
        None,
        description="PostgreSQL database of the site, `postgresql://USER@HOST:PORT/NAME` (libpq's options after `?`); "
        "any number of coordinators may share it. Default: SQLite, `coordinator.db` in the state directory.",
    )
    password_file: Path | None = Field(
        None,
        description="File (mode 0400) with the password of the database's user; default: the systemd credential "
        "`database-password` where one is given, else what libpq finds (`~/.pgpass`, certificates, peer).",
    )
    connections: int = Field(
        8, ge=2, le=64, description="Connections to PostgreSQL that write at once; 8 more read and listen."
    )

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        """A password in the URL would stand in a file that others may read, and in what `--set` leaves behind."""
        if url is not None and "@" in url and ":" in url.partition("://")[2].rpartition("@")[0]:
            raise ValueError("it must not hold the password; put that into state.password_file")
        return url


class EnrolmentSection(Section):
    """`[enrolment]`"""

    listen: str = Field("0.0.0.0", description="Address that the enrolment port listens on.")  # noqa: S104
    port: int = Field(8789, ge=0, le=65535, description="Port where agents spend their join tokens; 0: a free one.")
    address: str | None = Field(None, description="Address of the enrolment port in join tokens; default: this host.")


class FleetSection(Section):
    """`[fleet]`"""

    poll_interval_s: float = Field(30.0, gt=0, description="Seconds between polls of a host that answers.")
    away_deadline_s: float = Field(
        86400.0, gt=0, description="Seconds that an operation waits for a host before it ends with an error.",
        json_schema_extra=RELOADED,
    )  # fmt: skip
    member_lease_s: float = Field(
        30.0, ge=1, le=3600,
        description="Seconds unheard after which a host gives up its jobs on back ends that hosts share "
        "(`cluster_name`); another one takes them over after two and a half times that. Clocks must agree within half.",
    )  # fmt: skip


class HousekeepingSection(Section):
    """`[housekeeping]`"""

    interval_s: float = Field(3600.0, gt=0, description="Seconds between two rounds of dropping old rows.")
    messages_ttl_s: float = Field(
        2592000.0, gt=0, le=3153600000, description="Seconds that user messages are kept which are written from now on."
    )
    operations_days: float = Field(
        30.0, ge=1, description="Days that operations are kept after their end; those that need attention stay."
    )
    events_days: float = Field(
        30.0, ge=1,
        description="Days that events are kept; twice as many while one of [notifications] was not told of them.",
    )  # fmt: skip
    issues_days: float = Field(30.0, ge=1, description="Days that issues are kept after they were closed.")
    deleted_days: float = Field(
        90.0, ge=1, description="Days that the rows of deleted volumes, snapshots, attachments and images are kept."
    )
    archived_days: float = Field(
        730.0, ge=1, description="Days that the rows of what was deleted are kept after `db archive` moved them away."
    )


class CoordinatorSettings(Section):
    """Everything that a coordinator is told."""

    coordinator: CoordinatorSection = Field(default_factory=CoordinatorSection, description="The service itself.")
    api: ApiSettings = Field(default_factory=ApiSettings, description="The public API.")
    identity: IdentitySettings = Field(default_factory=IdentitySettings, description="Who may call.")
    state: StateSection = Field(default_factory=StateSection, description="Where the state lies.")
    enrolment: EnrolmentSection = Field(default_factory=EnrolmentSection, description="How hosts join.")
    fleet: FleetSection = Field(default_factory=FleetSection, description="Watching the hosts.")
    scheduler: SchedulerSettings = Field(
        default_factory=SchedulerSettings, description="Where volumes are placed.", json_schema_extra=RELOADED
    )
    quota: QuotaSettings = Field(default_factory=QuotaSettings, description="How usage is counted.")
    housekeeping: HousekeepingSection = Field(
        default_factory=HousekeepingSection, description="How long rows are kept that nobody works with any more.",
        json_schema_extra=RELOADED,
    )  # fmt: skip
    compute: ComputeSettings = Field(default_factory=ComputeSettings, description="The compute service.")
    notifications: NotificationsSettings = Field(
        default_factory=NotificationsSettings, description="Events that are sent out."
    )
    images: ImagesSection = Field(default_factory=ImagesSection, description="Where images are kept.")
    keys: KeysSection = Field(default_factory=KeysSection, description="Where secrets are sealed.")
    log: LogConfig = Field(default_factory=LogConfig, description="Log lines.", json_schema_extra=RELOADED)
    testing: TestingConfig = Field(default_factory=TestingConfig, description="Only for tests.")

    @model_validator(mode="after")
    def _services_need_a_keystone(self) -> CoordinatorSettings:
        if self.compute.strategy == "nova" and self.identity.keystone is None:
            raise ValueError("compute.strategy nova needs the table [identity.keystone]")
        glance = self.images.glance if self.images.service == "glance" else None
        if glance is not None and glance.auth == "keystone" and self.identity.strategy != "keystone":
            raise ValueError("[images.glance] auth keystone needs [identity] strategy keystone, whose tokens it takes")
        return self

    @model_validator(mode="after")
    def _barbican_needs_a_keystone(self) -> CoordinatorSettings:
        if self.keys.barbican is not None and self.identity.keystone is None:
            raise ValueError("the table [keys.barbican] needs the table [identity.keystone]")
        return self

    @model_validator(mode="after")
    def _trees_need_a_keystone(self) -> CoordinatorSettings:
        if self.quota.nested and self.identity.strategy != "keystone":
            raise ValueError("quota.nested needs [identity] strategy keystone: no other has projects below projects")
        return self

    @property
    def state_dir(self) -> Path:
        return self.coordinator.state_dir

    @property
    def database_file(self) -> Path:
        return self.state_dir / "coordinator.db"
