"""From a table of the configuration to a back end: the one place that knows all kinds."""

from __future__ import annotations

from agent.backends.base import Backend
from agent.backends.config import BackendConfig, LvmBackendConfig, NfsBackendConfig, RbdBackendConfig, SmbBackendConfig


def opened(name: str, config: BackendConfig) -> Backend:
    """Blocking. Only what opening that kind of back end raises."""
    if isinstance(config, LvmBackendConfig):
        from agent.backends.lvm_abilities import WholeLvmBackend

        return WholeLvmBackend(name, config)
    if isinstance(config, (NfsBackendConfig, SmbBackendConfig)):
        from agent.backends.share import ShareBackend

        return ShareBackend(name, config)
    if isinstance(config, RbdBackendConfig):
        from agent.backends.rbd_abilities import WholeRbdBackend

        return WholeRbdBackend(name, config)
    from agent.backends.file import FileBackend

    return FileBackend(name, config)
