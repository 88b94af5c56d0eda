"""Write LUKS2 headers: the JSON tree, packed twice with checksums, and the areas of the key slots behind them."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from agent.luks.details import Digest, Kdf, KeySlot
from agent.luks.errors import MetadataSize
from agent.luks.header import MAGIC
from agent.luks.luks2 import BINARY_BYTES, CHECKSUM_AT, HEAD, Metadata
from agent.luks.stored import Put, put

SECOND_MAGIC = b"SKUL\xba\xbe"
SIZE = 16384
DIGEST_BYTES = 32
_ALIGN = 4096
Tree = dict[str, Any]


def place(key_bytes: int, stripes: int, index: int, size: int = SIZE) -> int:
    """Where the material of a slot begins."""
    return 2 * size + index * area_bytes(key_bytes, stripes)


def area_bytes(key_bytes: int, stripes: int) -> int:
    return -(-key_bytes * stripes // _ALIGN) * _ALIGN


def new_tree(cipher: str, digest: Digest, payload: int, sector_size: int) -> Tree:
    """A tree without slots."""
    return {
        "keyslots": {},
        "tokens": {},
        "segments": {"0": {
            "type": "crypt", "offset": str(payload), "size": "dynamic", "iv_tweak": "0", "encryption": cipher,
            "sector_size": sector_size,
        }},
        "digests": {"0": {
            "type": "pbkdf2", "keyslots": [], "segments": ["0"], "hash": digest.kdf.hash,
            "iterations": digest.kdf.iterations, "salt": _text(digest.kdf.salt), "digest": _text(digest.value),
        }},
        "config": {"json_size": str(SIZE - BINARY_BYTES), "keyslots_size": str(payload - 2 * SIZE)},
    }  # fmt: skip


def with_slot(tree: Mapping[str, Any], slot: KeySlot) -> Tree:
    """The tree with one more slot, or with another one in its place."""
    made = copy.deepcopy(dict(tree))
    made["keyslots"][str(slot.index)] = {
        "type": "luks2",
        "key_size": slot.key_bytes,
        "af": {"type": "luks1", "stripes": slot.stripes, "hash": slot.hash},
        "area": {
            "type": "raw", "offset": str(slot.material), "size": str(area_bytes(slot.key_bytes, slot.stripes)),
            "encryption": slot.cipher, "key_size": slot.area_key_bytes,
        },
        "kdf": _kdf(slot.kdf),
    }  # fmt: skip
    members = _members(made)
    members[:] = sorted({*members, str(slot.index)}, key=int)
    return made


def without_slot(tree: Mapping[str, Any], index: int) -> Tree:
    """The tree without that slot."""
    made = copy.deepcopy(dict(tree))
    made["keyslots"].pop(str(index), None)
    members = _members(made)
    members[:] = [name for name in members if name != str(index)]
    return made


def _members(tree: Tree) -> list[str]:
    """The slots of the digest that the one segment has; the tree was checked."""
    segment = next(iter(tree["segments"]))
    found: list[str] = next(entry["keyslots"] for entry in tree["digests"].values() if segment in entry["segments"])
    return found


def _kdf(kdf: Kdf) -> Tree:
    if kdf.kind == "pbkdf2":
        return {"type": "pbkdf2", "hash": kdf.hash, "iterations": kdf.iterations, "salt": _text(kdf.salt)}
    return {
        "type": kdf.kind, "time": kdf.iterations, "memory": kdf.memory // 1024, "cpus": kdf.lanes,
        "salt": _text(kdf.salt),
    }  # fmt: skip


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def pack(found: Metadata) -> tuple[bytes, bytes]:
    """The two copies of a header; raises MetadataSize when the tree does not fit."""
    text = json.dumps(found.tree, separators=(",", ":")).encode()
    room = found.size - BINARY_BYTES
    if len(text) >= room:
        raise MetadataSize
    area = text.ljust(room, b"\0")
    first, second = (_copy(found, magic, at, area) for magic, at in ((MAGIC, 0), (SECOND_MAGIC, found.size)))
    return first, second


def _copy(found: Metadata, magic: bytes, at: int, area: bytes) -> bytes:
    binary = HEAD.pack(
        magic, 2, found.size, found.generation, b"", b"sha256", secrets.token_bytes(64), found.uuid.encode(), b"", at,
        b"", b"",
    ).ljust(BINARY_BYTES, b"\0")  # fmt: skip
    checksum = hashlib.sha256(binary + area).digest()
    return binary[:CHECKSUM_AT] + checksum + binary[CHECKSUM_AT + len(checksum) :] + area


def store(fd: int, found: Metadata) -> None:
    """Write both copies, one after the other: one of them is whole at any moment. Blocking."""
    first, second = pack(found)
    put(fd, Put(0, first))
    put(fd, Put(found.size, second))
