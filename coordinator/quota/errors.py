"""Over the limit: the sentences and the status 413 are the ones that Block Storage clients know."""

from __future__ import annotations

from agent.base.errors import Permanent

_RAISE = "Delete something, or ask an administrator to raise the limit: openstack quota set {options} PROJECT."


class OverQuota(Permanent):
    code = "quota.exceeded"
    status = 413
    exit_code = 8
    sentence = "Quota exceeded for resources: {resource} (requested {requested}, used {used}, limit {limit})."
    hint = _RAISE


class VolumeLimit(OverQuota):
    code = "quota.volumes"
    sentence = "VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{resource}'."
    hint = _RAISE


class SnapshotLimit(OverQuota):
    code = "quota.snapshots"
    sentence = "SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded for quota '{resource}'."
    hint = _RAISE


class GigabytesLimit(OverQuota):
    code = "quota.gigabytes"
    sentence = (
        "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {resource} quota. "
        "Requested {requested}G, quota is {limit}G and {used}G has been consumed."
    )
    hint = _RAISE


class TypeClosed(OverQuota):
    code = "quota.type-closed"
    sentence = "Volume type {type} is not open to the project (any more), so that what it has of it can not grow."
    hint = (
        "Have an administrator open it (openstack volume type set --project PROJECT {type}), or give the volume "
        "another type (openstack volume set --type TYPE VOLUME)."
    )


class VolumeSizeLimit(OverQuota):
    code = "quota.per-volume"
    sentence = "VolumeSizeExceedsLimit: Requested volume size {requested}G is larger than maximum allowed {limit}G."
    hint = "Ask for a smaller volume, or ask an administrator to raise per_volume_gigabytes."
