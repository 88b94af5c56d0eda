"""What making a volume needs to know of an image, whichever service keeps it. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """`decrypt_size` is what is inside an encrypted image; `host_id` the store agent that keeps the bytes.

    `properties` are those that a volume remembers as its image metadata.
    """

    id: str
    name: str | None
    status: str
    disk_format: str
    container_format: str
    size: int
    min_disk: int
    host_id: str | None
    sha256: str | None = None
    virtual_size: int | None = None
    encrypted: bool = False
    key_id: str | None = None
    decrypt_size: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
