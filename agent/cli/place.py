"""From the configuration to the place that the diagnostics look at."""

from __future__ import annotations

from pathlib import Path

from agent.backends.config import LvmBackendConfig, NfsBackendConfig, RbdBackendConfig, SmbBackendConfig
from agent.base.config import load
from agent.diagnostics.place import Place
from agent.server.settings import AgentSettings


def settings_of(config: Path | None, sets: tuple[str, ...]) -> AgentSettings:
    return load(AgentSettings, config, sets)


def place_of(settings: AgentSettings) -> Place:
    return Place(
        host=settings.agent.host,
        state_dir=settings.state_dir,
        spool_dir=settings.spool_dir,
        user=settings.privsep.user,
        limits_file=settings.privsep.limits_file,
        backends=settings.folders,
        images_dir=settings.images_dir,
        targets=frozenset(name for name, table in settings.targets if table is not None),
        groups={
            name: (one.group, one.pool) for name, one in settings.backends.items() if isinstance(one, LvmBackendConfig)
        },
        shares={
            name: (one.driver, one.path, one.share)
            for name, one in settings.backends.items()
            if isinstance(one, (NfsBackendConfig, SmbBackendConfig))
        },
        ceph={
            name: (one.conf, one.keyring_file)
            for name, one in settings.backends.items()
            if isinstance(one, RbdBackendConfig)
        },
        keyring=settings.connectors.ceph_keyring if settings.connectors.maps_images else None,
    )
