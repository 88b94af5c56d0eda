"""The table of job kinds. A handler's heavy imports happen when it first runs."""

from __future__ import annotations

from agent.jobs.handlers import (
    attachment_apply,
    attachment_resize,
    export_apply,
    image_commit,
    image_delete,
    image_from_volume,
    snapshot_adopt,
    snapshot_create,
    snapshot_delete,
    snapshot_release,
    snapshots_delete,
    transfer_close,
    transfer_open,
    volume_adopt,
    volume_clone,
    volume_create,
    volume_delete,
    volume_extend,
    volume_from_image,
    volume_recrypt,
    volume_reimage,
    volume_release,
    volume_revert,
)
from agent.jobs.kinds import Kind

KINDS: dict[str, Kind] = {
    module.KIND.name: module.KIND
    for module in (
        attachment_apply,
        attachment_resize,
        export_apply,
        image_commit,
        image_delete,
        image_from_volume,
        snapshot_adopt,
        snapshot_create,
        snapshot_delete,
        snapshot_release,
        snapshots_delete,
        transfer_close,
        transfer_open,
        volume_adopt,
        volume_clone,
        volume_create,
        volume_delete,
        volume_extend,
        volume_from_image,
        volume_recrypt,
        volume_reimage,
        volume_release,
        volume_revert,
    )
}

# What handlers import when they run: loaded before root is dropped where it would be out of reach afterwards.
LATE_MODULES = (
    "agent.backends.lvm_abilities",
    "agent.connectors.local",
    "agent.connectors.eckd",
    "agent.connectors.fc",
    "agent.connectors.iscsi",
    "agent.connectors.nvme",
    "agent.connectors.nvme_raid",
    "agent.targets.lio",
    "agent.targets.nvmet",
    "agent.images.inspect",
    "agent.images.volume",
    "agent.luks.blank",
    "agent.luks.recrypt",
    "agent.luks.slots",
    "agent.luks.xts",
    "agent.luks.cbc",
    "cryptography.hazmat.primitives.kdf.argon2",
    "cryptography.hazmat.primitives.ciphers.modes",
)
