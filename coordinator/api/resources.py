"""Every resource that is served, in the order of the reference pages."""

from __future__ import annotations

from coordinator.api.route import Resource


def all_resources() -> tuple[Resource, ...]:
    """The tables; imported here and nowhere else, so that a command that serves nothing does not pay for them."""
    from coordinator.api.brickyard import attachments as host_attachments
    from coordinator.api.brickyard import (
        draining,
        events,
        evictions,
        features,
        forgetting,
        handing_over,
        hosts,
        issues,
        operations,
        rekeying,
        repair,
        states,
        switches,
        type_metadata,
    )
    from coordinator.api.brickyard.images import registered_images
    from coordinator.api.brickyard.keys import keys
    from coordinator.api.identity import identity_resources
    from coordinator.api.image import image_resources

    return (
        *_block_storage(),
        *image_resources(),
        switches.resource(),
        hosts.resource(),
        draining.resource(),
        evictions.resource(),
        operations.resource(),
        host_attachments.resource(),
        issues.resource(),
        events.resource(),
        repair.resource(),
        rekeying.resource(),
        forgetting.resource(),
        states.resource(),
        type_metadata.resource(),
        features.resource(),
        handing_over.resource(),
        keys(),
        registered_images(),
        *identity_resources(),
    )


def _block_storage() -> tuple[Resource, ...]:
    """What stands below `/v3`."""
    from coordinator.api.v3 import (
        attachments,
        capabilities,
        clusters,
        default_types,
        manage,
        metadata,
        qos,
        service_actions,
        snapshot_actions,
        snapshots,
        transfers,
        volume_actions,
        volume_connections,
        volume_images,
        volumes,
        workers,
    )
    from coordinator.api.v3 import hosts as os_hosts
    from coordinator.api.v3.messages import messages
    from coordinator.api.v3.quotas import quotas
    from coordinator.api.v3.services import services
    from coordinator.api.v3.site import site
    from coordinator.api.v3.type_specs import type_specs
    from coordinator.api.v3.types import types

    return (
        volumes.resource(),
        volume_actions.resource(),
        volume_connections.resource(),
        volume_images.resource(),
        *metadata.resources(),
        snapshots.resource(),
        snapshot_actions.resource(),
        manage.resource(),
        attachments.resource(),
        types(),
        type_specs(),
        default_types.resource(),
        qos.resource(),
        transfers.resource(),
        quotas(),
        messages(),
        services(),
        *service_actions.resources(),
        clusters.resource(),
        workers.resource(),
        os_hosts.resource(),
        capabilities.resource(),
        site(),
    )
