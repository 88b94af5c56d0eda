"""The part of the Image v2 API that clients need to hand images in and fetch them, below `/image`."""

from __future__ import annotations

from coordinator.api.route import Resource


def image_resources() -> tuple[Resource, ...]:
    """Discovery, schemas, images and imports."""
    from coordinator.api.image.discovery import discovery, schemas
    from coordinator.api.image.images import images
    from coordinator.api.image.imports import imports

    return discovery(), schemas(), images(), imports()
