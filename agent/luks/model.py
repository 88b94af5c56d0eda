"""Keys, formats and sizes: the one place that says how a secret becomes a passphrase and how big a header is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agent.luks.errors import BadSecret

MiB = 1 << 20
STRONG_KEY_BYTES = 32
STRONG_KEY_ITERATIONS = 1000
MAX_PASSPHRASE = 4096


@dataclass(frozen=True, slots=True)
class Secret:
    """A key and its kind as the key manager knows it; the value never shows in `repr`."""

    type: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Format:
    """How a volume is encrypted. `key_size` is in bits and counts both halves of an XTS key."""

    format: Literal["luks1", "luks2"] = "luks1"
    cipher: str = "aes-xts-plain64"
    key_size: int = 512


@dataclass(frozen=True, slots=True)
class KdfLimits:
    """The most that opening a foreign header may cost: iterations (time), bytes (memory), metadata bytes."""

    slot_iterations: int = 64_000_000
    total_iterations: int = 192_000_000
    argon_passes: int = 64
    memory_bytes: int = 1 << 30
    threads: int = 8
    metadata_bytes: int = 1 << 20


DEFAULT_LIMITS = KdfLimits()


def passphrase(secret: Secret) -> bytes:
    """The bytes that open a LUKS header: type `passphrase` as it is, any other type hex-encoded.

    Raises BadSecret when it is empty or longer than 4096 bytes.
    """
    value = secret.value if secret.type == "passphrase" else secret.value.hex().encode()
    if not value:
        raise BadSecret(reason="it is empty")
    if len(value) > MAX_PASSPHRASE:
        raise BadSecret(reason=f"it is longer than {MAX_PASSPHRASE} bytes")
    return value


def iterations_for(secret: Secret, source_slot: int | None, default: int) -> int:
    """PBKDF2 iterations of a new key slot.

    A random key of 256 bits gains nothing from stretching; a passphrase keeps what its owner chose for the image.
    """
    if secret.type != "passphrase" and len(secret.value) >= STRONG_KEY_BYTES:
        return STRONG_KEY_ITERATIONS
    return max(STRONG_KEY_ITERATIONS, source_slot or default)


def header_bytes(fmt: Format) -> int:
    """Bytes before the payload of a header that `container.create` makes."""
    return 2 * MiB if fmt.format == "luks1" else 16 * MiB


def device_bytes(usable: int, fmt: Format | None) -> int:
    """Bytes a device needs so that `usable` bytes are left inside; without encryption the same number."""
    return usable if fmt is None else usable + header_bytes(fmt)
