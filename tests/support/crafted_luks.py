"""LUKS headers laid by hand, every field at will."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from agent.luks import header

ACTIVE, UNUSED = 0x00AC71F3, 0x0000DEAD


def luks1_bytes(**changes: Any) -> bytes:
    """A LUKS1 header with one active slot; every field can be changed."""
    f: dict[str, Any] = {
        "magic": header.MAGIC, "version": 1, "cipher": b"aes", "mode": b"xts-plain64", "hash": b"sha256",
        "payload": 4096,
        "key_bytes": 64, "digest_iterations": 1000, "state": ACTIVE, "iterations": 1000, "material": 8, "stripes": 4000,
    } | changes  # fmt: skip
    head = struct.pack(
        ">6sH32s32s32sII20s32sI40s", f["magic"], f["version"], f["cipher"], f["mode"], f["hash"], f["payload"],
        f["key_bytes"], bytes(20), bytes(32), f["digest_iterations"], b"u",
    )  # fmt: skip
    slot = struct.pack(">II32sII", f["state"], f["iterations"], bytes(32), f["material"], f["stripes"])
    unused = struct.pack(">II32sII", UNUSED, 0, bytes(32), 8, 4000)
    return head + slot + unused * 7


def luks2_tree() -> dict[str, Any]:
    area = {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64}
    kdf = {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4, "salt": "AAAAAAAAAAA="}
    slot = {"type": "luks2", "key_size": 64, "kdf": kdf, "area": area, "af": {"stripes": 4000, "hash": "sha256"}}
    segment = {"type": "crypt", "offset": "1048576", "size": "dynamic", "iv_tweak": "0", "sector_size": 512,
               "encryption": "aes-xts-plain64"}  # fmt: skip
    digest = {
        "type": "pbkdf2",
        "hash": "sha256",
        "iterations": 1000,
        "keyslots": ["0"],
        "segments": ["0"],
        "salt": "AAAA",
        "digest": "A" * 43 + "=",
    }
    return {
        "keyslots": {"0": slot}, "tokens": {}, "segments": {"0": segment}, "digests": {"0": digest},
        "config": {"json_size": "12288", "keyslots_size": "1015808"},
    }  # fmt: skip


def luks2_bytes(tree: Any, *, size: int = 16384, damage: bool = False) -> bytes:
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    area = text.ljust(16384 - 4096, b"\0")
    binary = struct.pack(
        ">6sHQQ48s32s64s40s48sQ184s64s", header.MAGIC, 2, size, 1, b"", b"sha256", b"", b"uuid", b"", 0, b"", b""
    ).ljust(4096, b"\0")
    checksum = hashlib.sha256(binary + area).digest()
    if damage:
        checksum = bytes(32)
    return binary[:448] + checksum + binary[480:] + area
