"""What has to do with images: who keeps them, what is proven of them, what is kept of them on back ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.identity.policy import Policy
from coordinator.images.client import ImageClient, LocalImages
from coordinator.images.protections import Protections
from coordinator.operations.cache_keeper import CacheKeeper
from coordinator.operations.engine import Engine
from coordinator.operations.image_cache import ImageCache, Owner
from coordinator.operations.image_volume import ImageVolumes
from coordinator.operations.signatures import Signatures
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import Opened

if TYPE_CHECKING:
    from coordinator.images.certificates import CertificateManager
    from coordinator.operations.registered_images import RegisteredImages


@dataclass(frozen=True, slots=True)
class ImageParts:
    """All of it; end the connections with `close()`."""

    client: ImageClient
    signatures: Signatures
    cache: ImageCache
    volumes: ImageVolumes
    protections: Protections | None

    def keeper(self, engine: Engine) -> CacheKeeper | None:
        """Who keeps the cache true; nobody where nothing is cached."""
        return CacheKeeper(engine, self.cache.owner, self.client) if self.cache.owner is not None else None

    def registered(self, opened: Opened) -> list[RegisteredImages]:
        """Who looks after what was registered at a service outside; nobody where there is none."""
        if not self.client.outside:
            return []
        from coordinator.images.glance import Glance
        from coordinator.operations.registered_images import RegisteredImages

        assert isinstance(self.client, Glance)
        return [RegisteredImages(opened.db, self.client, opened.keys)]

    async def close(self) -> None:
        await self.client.close()
        await self.signatures.close()


def image_parts(settings: CoordinatorSettings, opened: Opened, policy: Policy) -> ImageParts:
    """Put it together; raises ConfigError."""
    manager = _certificates(settings)
    client, cache, glance = _images(settings, opened, manager), _cache(settings, opened), settings.images.glance
    return ImageParts(
        client,
        Signatures(opened.db, opened.keys, settings.images, manager),
        cache,
        ImageVolumes(client, cache.owner if glance is not None and glance.upload_clones_internal else None),
        _protections(settings, policy),
    )


def _images(settings: CoordinatorSettings, opened: Opened, manager: CertificateManager | None) -> ImageClient:
    """Who keeps the images. A Glance is called as the user that this service has at the Keystone."""
    glance = settings.images.glance
    if settings.images.service == "catalog" or glance is None:
        return LocalImages(opened.db)
    from coordinator.identity.service_user import ServiceUser
    from coordinator.images.glance import Glance

    if glance.auth == "none":
        return Glance(glance, opened.db)
    assert settings.identity.keystone is not None, "the settings see to it"
    return Glance(glance, opened.db, ServiceUser(settings.identity.keystone), manager)


def _certificates(settings: CoordinatorSettings) -> CertificateManager | None:
    """Where certificates and keys of images lie, beside the sealed store."""
    section = settings.keys.barbican
    if section is None:
        return None
    from coordinator.identity.service_user import ServiceUser
    from coordinator.images.certificates import CertificateManager, Place

    assert settings.identity.keystone is not None, "the settings see to it"
    place = Place(section.endpoint, section.interface, section.region, section.timeout_s)
    return CertificateManager(place, ServiceUser(settings.identity.keystone))


def _cache(settings: CoordinatorSettings, opened: Opened) -> ImageCache:
    section = settings.images
    project = section.internal_project
    return ImageCache(opened.db, Owner(project, section.internal_user) if project is not None else None)


def _protections(settings: CoordinatorSettings, policy: Policy) -> Protections | None:
    section = settings.images
    if section.property_protections is None:
        return None
    by_policy = section.property_protections_by == "policies"
    return Protections.from_file(section.property_protections, by_policy=by_policy, known=policy.rules.__contains__)
