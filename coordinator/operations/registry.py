"""All workflows of this release. A new version of a kind is added beside the old one for one release."""

from __future__ import annotations

from coordinator.compute.base import Compute
from coordinator.keys.store import KeyStore
from coordinator.operations import (
    attach_host,
    clear_returned,
    connect_volume,
    create_snapshot,
    create_volume,
    delete_cascade,
    delete_image,
    delete_snapshot,
    delete_volume,
    download_image,
    extend_volume,
    import_image,
    manage_snapshot,
    manage_volume,
    recrypt_volume,
    reimage_volume,
    rekey_volume,
    revert_volume,
    upload_image,
    upload_to_service,
    upload_volume,
)
from coordinator.operations.completions import Completions
from coordinator.operations.image_cache import ImageCache
from coordinator.operations.image_source import Login
from coordinator.operations.image_streams import ImageStreams
from coordinator.operations.image_volume import ImageVolumes
from coordinator.operations.workflow import Workflows
from coordinator.scheduler.placement import Scheduler


def workflows(
    keys: KeyStore,
    streams: ImageStreams | None = None,
    *,
    scheduler: Scheduler | None = None,
    compute: Compute | None = None,
    completions: Completions | None = None,
    login: Login | None = None,
    cache: ImageCache | None = None,
    image_volumes: ImageVolumes | None = None,
) -> Workflows:
    """Every (kind, version) that can be run here; without `streams` no image is carried by this process.

    `compute` hears of volumes that its servers use; `completions` is where an extend waits for one of them; `login` is
    this site's own at the image service; `cache` knows whose the cached images are, `image_volumes` offers
    clones to the image service.
    """
    scheduler = scheduler or Scheduler()
    carried = () if streams is None else (upload_image.workflow(streams), download_image.workflow(streams))
    return Workflows(
        (
            create_volume.workflow_v1(keys, scheduler, login),
            create_volume.workflow(keys, scheduler, login, cache),
            delete_volume.workflow(keys),
            delete_cascade.workflow(keys),
            extend_volume.workflow_v1(scheduler),
            extend_volume.workflow_v2(keys, scheduler),
            extend_volume.workflow(keys, scheduler, compute, completions),
            create_snapshot.workflow(scheduler),
            delete_snapshot.workflow(keys),
            attach_host.attach_workflow_v1(keys),
            attach_host.detach_workflow_v1(keys),
            attach_host.attach_workflow(keys),
            attach_host.detach_workflow(keys),
            delete_image.workflow(keys),
            clear_returned.workflow(keys),
            import_image.workflow(keys),
            connect_volume.connect_workflow(keys),
            connect_volume.disconnect_workflow(keys),
            revert_volume.workflow(),
            recrypt_volume.workflow(keys, scheduler),
            rekey_volume.workflow(keys),
            upload_volume.workflow(keys),
            reimage_volume.workflow_v1(keys, login),
            reimage_volume.workflow(keys, compute, login),
            upload_to_service.workflow_v1(keys, login),
            upload_to_service.workflow(keys, login, image_volumes),
            manage_volume.manage_workflow(keys),
            manage_volume.unmanage_workflow(),
            manage_snapshot.manage_workflow(),
            manage_snapshot.unmanage_workflow(),
            *carried,
        )
    )
