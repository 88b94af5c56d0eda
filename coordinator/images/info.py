"""What a volume needs to know of an image, whichever service keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY_ID = ("os_encrypt_key_id", "cinder_encryption_key_id")
KEY_POLICY = ("os_encrypt_key_deletion_policy", "cinder_encryption_key_deletion_policy")
FORMAT = "os_encrypt_format"
LUKS = {"luks1": "LUKSv1", "luks2": "LUKSv2"}
DECRYPT_SIZE = "os_decrypt_size"
DELETE_WITH_IMAGE = "on_image_deletion"
KEEP = "do_not_delete"
ENCRYPTION = frozenset({*KEY_ID, *KEY_POLICY, FORMAT, DECRYPT_SIZE})
"""Properties that are about the image's own encryption; a volume does not inherit them."""
SIGNATURE = ("img_signature", "img_signature_hash_method", "img_signature_key_type", "img_signature_certificate_uuid")
VERIFIED, VALIDATED, TRUSTED = "signature_verified", "certificates_validated", "trusted_image_certificates"
PROVEN = frozenset({VERIFIED, VALIDATED, TRUSTED})
"""What this site says of the image of a volume: no image brings it along, and no user sets it."""
_GLANCES = "os_glance"
"""How names begin that a Glance keeps for itself: it refuses images that are given one."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is to be proven of an image: its signature (value, hash_method, key_type, certificate), None if it has none.

    `refused` is the body of the error that its use ends with; `trusted` are the certificates that its user named,
    `validated` says that the signer's follows from those, or from the site's.
    """

    signature: Mapping[str, str] | None = None
    refused: Mapping[str, Any] | None = None
    trusted: tuple[str, ...] = ()
    validated: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """The secret of an encrypted image, opened at a key manager with the caller's own token."""

    type: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Sizes are bytes, `min_disk` is GiB. `properties` is what a volume made of it remembers (strings).

    `url` is set for an image of a service outside of the site, its address there; `needs_login` when only a login
    gives its bytes. `digest` is (algorithm, hex digits) over its bytes. `proof` is None where nothing is verified.
    `version` changes with its data and with what is said of it. `backing` are volumes that, so its service says,
    hold its data as they are. `key` is set where the secret `key_id` does not lie in the store of this site.
    """

    id: str
    name: str | None
    status: str
    owner: str
    disk_format: str
    container_format: str
    size: int
    virtual_size: int | None = None
    min_disk: int = 0
    sha256: str | None = None
    digest: tuple[str, str] | None = None
    url: str | None = None
    needs_login: bool = False
    host_id: str | None = None
    encrypted: bool = False
    key_id: str | None = None
    key: ForeignKey | None = None
    delete_key: bool = False
    decrypt_size: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    proof: Proof | None = None
    version: str | None = None
    backing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encryption:
    """The encryption properties of an image, new and old names read alike."""

    key_id: str | None = None
    delete_key: bool = False
    decrypt_size: int | None = None
    named: bool = False
    """Whether any property says that the image is encrypted."""


def encryption(properties: Mapping[str, str]) -> Encryption:
    """Read them; a decrypt size that is no number counts as not given."""
    key_id = _first(properties, KEY_ID)
    size = properties.get(DECRYPT_SIZE, "")
    return Encryption(
        key_id=key_id,
        delete_key=_first(properties, KEY_POLICY) == DELETE_WITH_IMAGE,
        decrypt_size=int(size) if size.isascii() and size.isdigit() else None,
        named=bool(key_id or properties.get(FORMAT)),
    )


def is_reserved(name: str) -> bool:
    """Whether a property says something of one image alone: no volume inherits it, and no user sets it for a volume."""
    return name in PROVEN or name in ENCRYPTION or name.startswith(_GLANCES)


def encrypted(key_id: str, luks: str, decrypt_size: int) -> dict[str, str]:
    """The properties of an encrypted image whose key goes with it; `luks` is luks1 or luks2.

    Under the old names, too: services that know only those read them.
    """
    return {
        **dict.fromkeys(KEY_ID, key_id),
        **dict.fromkeys(KEY_POLICY, DELETE_WITH_IMAGE),
        FORMAT: LUKS[luks],
        DECRYPT_SIZE: str(decrypt_size),
    }


def _first(properties: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((properties[name] for name in names if properties.get(name)), None)
