"""The corpus of crafted images: every known way in which an image was used against the host that opened it.

Each names `host` (a file of the host that no reader may ever open) wherever its format can name a file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.images.inspect import Declared
from tests.support.crafted_luks import UNUSED, luks1_bytes, luks2_bytes, luks2_tree
from tests.support.crafted_others import isolated, others
from tests.support.crafted_qcow2 import extension, qcow2_bytes

MiB = 1 << 20
RAW, QCOW2, LUKS = Declared("raw"), Declared("qcow2"), Declared("raw", "luks", True)
LUKS_QCOW2 = Declared("qcow2", "bare", True)
_CLUSTER = 65536
_COMPRESSED = 1 << 62


@dataclass(frozen=True, slots=True)
class Crafted:
    """An image's bytes (and zeros up to `length`), and the code that it is refused with; "" when it is harmless.

    `content` is what a harmless one begins with.
    """

    name: str
    declared: Declared
    data: bytes
    code: str
    length: int | None = None
    content: bytes = b""


def corpus(host: str) -> list[Crafted]:
    """All of them, each name once."""
    made = [*_references(host), *_headers(), *_features(), *_tables(), *_clusters(), *_luks(), *_foreign(host)]
    assert len({each.name for each in made}) == len(made)
    return made


def _references(host: str) -> Iterator[Crafted]:
    """Names of other files: CVE-2022-47951, CVE-2024-32498, CVE-2024-4467 and their kin."""
    pseudo = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": host}})
    names = {
        "plain": host,
        "json": f"json:{pseudo}",
        "file": f"file:{host}",
        "nbd": "nbd:127.0.0.1:1",
        "nbd-unix": f"nbd+unix:///?socket={host}",
        "http": "http://127.0.0.1:1/a",
        "rbd": "rbd:pool/image",
        "relative": "../../host",
        "empty": "",
    }
    for kind, name in names.items():
        text = name.encode()
        data = bytearray(qcow2_bytes(backing=1024, backing_len=len(text)))
        data[1024 : 1024 + len(text)] = text
        yield Crafted(f"backing-{kind}", QCOW2, bytes(data), "image.backing-file")
        if text:
            laid = qcow2_bytes(extension(0x44415441, text), features=4)
            yield Crafted(f"data-file-{kind}", QCOW2, laid, "image.data-file")
    yield Crafted("backing-length-only", QCOW2, qcow2_bytes(backing_len=9), "image.backing-file")
    yield Crafted("backing-version-2", QCOW2, qcow2_bytes(version=2, backing=512, backing_len=4), "image.backing-file")
    yield Crafted("backing-beyond-the-end", QCOW2, qcow2_bytes(backing=1 << 60, backing_len=9), "image.backing-file")
    yield Crafted("backing-format-alone", QCOW2, qcow2_bytes(extension(0xE2792ACA, b"raw")), "image.backing-file")
    # The name without the bit: a tool that only looks at bits lets it pass (CVE-2024-40767).
    yield Crafted("data-file-name-alone", QCOW2, qcow2_bytes(extension(0x44415441, host.encode())), "image.data-file")
    yield Crafted("data-file-bit-alone", QCOW2, qcow2_bytes(features=4), "image.data-file")
    yield Crafted("data-file-raw-external", QCOW2, qcow2_bytes(autoclear=2), "image.data-file")
    hidden = extension(0x6803F857, bytes(96)) + extension(0x44415441, host.encode())
    yield Crafted("data-file-behind-names", QCOW2, qcow2_bytes(hidden, features=4), "image.data-file")


def _headers() -> Iterator[Crafted]:
    """Numbers that overflow, are negative when read as signed, or lead out of the file."""
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "version-0": ({"version": 0}, "image.version"),
        "version-1": ({"version": 1}, "image.version"),
        "version-4": ({"version": 4}, "image.version"),
        "cluster-bits-0": ({"bits": 0}, "image.malformed"),
        "cluster-bits-8": ({"bits": 8}, "image.malformed"),
        "cluster-bits-22": ({"bits": 22}, "image.malformed"),
        "cluster-bits-negative": ({"bits": 0xFFFFFFFF}, "image.malformed"),
        "size-negative": ({"size": (1 << 64) - 512}, "image.malformed"),
        "size-2-to-62": ({"size": 1 << 62}, "image.malformed"),
        "size-uneven": ({"size": 511}, "image.malformed"),
        "size-bomb": ({"size": 1 << 45, "l1_entries": 1 << 16}, "image.truncated"),
        "l1-huge": ({"l1_entries": 0xFFFFFFFF}, "image.malformed"),
        "l1-too-small": ({"l1_entries": 0}, "image.malformed"),
        "l1-unaligned": ({"l1": 65544}, "image.malformed"),
        "l1-beyond-the-end": ({"l1": 1 << 40}, "image.truncated"),
        "l1-negative": ({"l1": (1 << 64) - _CLUSTER}, "image.truncated"),
        "refcount-width": ({"refcount_order": 0xFFFFFFFF}, "image.malformed"),
        "header-short": ({"header_length": 8}, "image.malformed"),
        "header-uneven": ({"header_length": 111}, "image.malformed"),
        "header-beyond-cluster": ({"header_length": 0xFFFFFFF8}, "image.malformed"),
        "extension-length": ({"extensions": struct.pack(">II", 0x6803F857, 0xFFFFFFF8)}, "image.malformed"),
        "extension-chain": ({"extensions": extension(0x6803F857, b"") * 5000}, "image.malformed"),
    }
    for name, (changes, code) in bad.items():
        yield Crafted(name, QCOW2, qcow2_bytes(**changes), code)
    yield Crafted("header-truncated", QCOW2, qcow2_bytes()[:60], "image.truncated")
    yield Crafted("header-truncated-v3", QCOW2, qcow2_bytes()[:90], "image.truncated")
    yield Crafted("empty", QCOW2, b"", "image.empty")
    yield Crafted("size-above-the-volume", QCOW2, qcow2_bytes(size=1 << 34, l1_entries=32), "image.size")


def _features() -> Iterator[Crafted]:
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "incompatible-bit-5": ({"features": 1 << 5}, "image.unknown-feature"),
        "incompatible-bit-63": ({"features": 1 << 63}, "image.unknown-feature"),
        "corrupt-bit": ({"features": 2}, "image.corrupt"),
        "unknown-extension": ({"extensions": extension(0x7F7F7F7F, b"?")}, "image.unknown-feature"),
        "bitmaps": ({"extensions": extension(0x23852875, bytes(24))}, "image.bitmaps"),
        "snapshots": ({"snapshots": 1}, "image.internal-snapshots"),
        "snapshots-many": ({"snapshots": 0xFFFFFFFF}, "image.internal-snapshots"),
        "aes": ({"crypt": 1}, "image.legacy-encryption"),
        "unknown-encryption": ({"crypt": 3}, "image.unknown-feature"),
        "luks-without-header": ({"crypt": 2}, "image.malformed"),
        "luks-header-without-method": ({"extensions": extension(0x0537BE77, bytes(16))}, "image.malformed"),
        "luks-header-size": ({"crypt": 2, "extensions": extension(0x0537BE77, bytes(8))}, "image.malformed"),
        "luks-header-outside": (
            {"crypt": 2, "extensions": extension(0x0537BE77, struct.pack(">QQ", 1 << 63, 1 << 62))},
            "image.truncated",
        ),
        "luks-header-twice": (
            {"crypt": 2, "extensions": extension(0x0537BE77, struct.pack(">QQ", 0, 512)) * 2}, "image.malformed",
        ),
        "luks-not-declared": (
            {"crypt": 2, "extensions": extension(0x0537BE77, struct.pack(">QQ", 0, 512))},
            "image.undeclared-encryption",
        ),
        "compression-bit-alone": ({"features": 8}, "image.compression"),
        "extended-small-clusters": ({"features": 16, "bits": 13, "l1": 65536}, "image.malformed"),
    }  # fmt: skip
    for name, (changes, code) in bad.items():
        yield Crafted(name, QCOW2, qcow2_bytes(**changes), code)
    yield Crafted("plain-but-declared-encrypted", LUKS_QCOW2, qcow2_bytes(), "image.not-encrypted")


def _patched(*changes: tuple[int, int], **fields: Any) -> bytes:
    data = bytearray(qcow2_bytes(**fields))
    for at, word in changes:
        data[at : at + 8] = struct.pack(">Q", word)
    return bytes(data)


def _tables() -> Iterator[Crafted]:
    """Tables that lie: what is wrong is found when it is read, before anything of it is used."""
    first, second = _CLUSTER, 2 * _CLUSTER
    # The first entries hold zeros, so that what is looked at before the copy is good.
    yield Crafted("l2-unaligned", QCOW2, _patched((first, second + 512)), "image.malformed")
    yield Crafted("l2-beyond-the-end", QCOW2, _patched((first, 1 << 50)), "image.truncated")
    yield Crafted("l1-reserved-bits", QCOW2, _patched((first, second | 1 << 60)), "image.malformed")
    yield Crafted("cluster-unaligned", QCOW2, _patched((second + 8, 3 * _CLUSTER + 512)), "image.malformed")
    yield Crafted("cluster-beyond-the-end", QCOW2, _patched((second + 8, 1 << 50)), "image.truncated")
    yield Crafted("cluster-reserved-bits", QCOW2, _patched((second + 8, 3 * _CLUSTER | 2)), "image.malformed")
    yield Crafted("l2-is-l1", QCOW2, _patched((first, first)), "")
    yield Crafted("no-cluster-at-all", QCOW2, _patched((second, 0)), "", content=bytes(_CLUSTER))
    yield Crafted("first-cluster-is-l1", QCOW2, _patched((second, first)), "", content=_patched()[first:second])


def _clusters() -> Iterator[Crafted]:
    """Compressed clusters: more than a cluster, rubbish, endless, past the end."""

    def packed(content: bytes, at: int = 1) -> bytes:
        packer = zlib.compressobj(9, wbits=-12)
        stored = packer.compress(content) + packer.flush()
        entry = _COMPRESSED | (len(stored) // 512) << 54 | 3 * _CLUSTER
        return _patched((2 * _CLUSTER + 8 * at, entry), first=stored, entry=0)

    yield Crafted("compressed-bomb", QCOW2, packed(b"boom" * (32 << 18)), "", content=bytes(_CLUSTER) + b"boom" * 16384)
    yield Crafted("compressed-short", QCOW2, packed(b"short"), "image.truncated")
    rubbish = _patched((2 * _CLUSTER + 8, _COMPRESSED | 3 * _CLUSTER), first=b"\xff" * 512, entry=0)
    yield Crafted("compressed-rubbish", QCOW2, rubbish, "image.truncated")
    beyond = _patched((2 * _CLUSTER + 8, _COMPRESSED | 1 << 40))
    yield Crafted("compressed-beyond-the-end", QCOW2, beyond, "image.truncated")
    bombs = packed(b"\0" * _CLUSTER)
    entry = bombs[2 * _CLUSTER + 8 :][:8]
    again = bombs[: 2 * _CLUSTER] + entry * 1024 + bombs[2 * _CLUSTER + 8192 :]
    yield Crafted("one-compressed-cluster-a-thousand-times", QCOW2, again, "", content=bytes(_CLUSTER))


def _luks() -> Iterator[Crafted]:
    """Headers of LUKS that lie."""
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "version-3": ({"version": 3}, "image.luks-version"),
        "detached": ({"payload": 0}, "image.luks-detached"),
        "payload-outside": ({"payload": 1 << 31}, "image.luks-segment"),
        "null-cipher": ({"cipher": b"cipher_null"}, "image.luks-null-cipher"),
        "other-cipher": ({"cipher": b"anubis"}, "image.luks-cipher"),
        "kernel-driver": ({"cipher": b"capi:ecb(cipher_null)"}, "image.luks-null-cipher"),
        "other-hash": ({"hash": b"crc32c"}, "image.luks-cipher"),
        "cipher-hidden-text": ({"cipher": b"aes\0evil"}, "image.luks-cipher"),
        "key-gigabyte": ({"key_bytes": 1 << 30}, "image.luks-cipher"),
        "iterations": ({"iterations": 0xFFFFFFFF}, "image.luks-kdf-limit"),
        "digest-iterations": ({"digest_iterations": 0xFFFFFFFF}, "image.luks-kdf-limit"),
        "no-iterations": ({"iterations": 0}, "image.luks-key-area"),
        "stripes": ({"stripes": 0xFFFFFFFF}, "image.luks-key-area"),
        "material-over-header": ({"material": 0}, "image.luks-key-area"),
        "material-over-payload": ({"material": 4095}, "image.luks-key-area"),
        "no-slot": ({"state": UNUSED}, "image.luks-key-area"),
        "slot-state": ({"state": 0xFFFFFFFF}, "image.luks-key-area"),
    }
    for name, (changes, code) in bad.items():
        yield Crafted(f"luks1-{name}", LUKS, luks1_bytes(**changes), code, 4 * MiB)
    yield Crafted("luks1-truncated", LUKS, luks1_bytes()[:500], "image.truncated")
    yield Crafted("luks-missing", LUKS, bytes(MiB), "image.luks-missing")
    yield Crafted("luks-not-declared-raw", RAW, luks1_bytes(), "image.undeclared-encryption", 4 * MiB)
    yield Crafted("luks2-second-header-alone", RAW, b"SKUL\xba\xbe\0\2", "image.undeclared-encryption", MiB)
    for name, code, change in _LUKS2:
        tree = luks2_tree()
        change(tree)
        yield Crafted(f"luks2-{name}", LUKS, luks2_bytes(tree), code, 4 * MiB)
    yield Crafted("luks2-damaged", LUKS, luks2_bytes(luks2_tree(), damage=True), "image.luks-metadata", 4 * MiB)
    yield Crafted("luks2-deep-json", LUKS, luks2_bytes(b"[" * 12000), "image.luks-metadata", 4 * MiB)
    yield Crafted("luks2-metadata-size", LUKS, luks2_bytes(luks2_tree(), size=1 << 40), "image.luks-metadata", 4 * MiB)


def _put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for name in path[:-1]:
            tree = tree[name]
        tree[path[-1]] = value

    return change


_KDF, _AREA, _SEGMENT = ("keyslots", "0", "kdf"), ("keyslots", "0", "area"), ("segments", "0")
_LUKS2 = (
    ("token", "image.luks-token", _put("tokens", value={"0": {"type": "systemd-tpm2", "keyslots": ["0"]}})),
    ("requirements", "image.luks-requirements", _put("config", "requirements", value={"mandatory": ["x"]})),
    ("argon-memory", "image.luks-kdf-limit", _put(*_KDF, "memory", value=1 << 40)),
    ("argon-time", "image.luks-kdf-limit", _put(*_KDF, "time", value=1 << 31)),
    ("argon-lanes", "image.luks-kdf-limit", _put(*_KDF, "cpus", value=1 << 20)),
    ("slot-type", "image.luks-requirements", _put("keyslots", "0", "type", value="reencrypt")),
    ("area-outside", "image.luks-key-area", _put(*_AREA, "offset", value=str(1 << 62))),
    ("area-negative", "image.luks-metadata", _put(*_AREA, "offset", value="-4096")),
    ("segment-outside", "image.luks-segment", _put(*_SEGMENT, "offset", value=str(1 << 40))),
    ("segment-detached", "image.luks-detached", _put(*_SEGMENT, "offset", value="0")),
    ("segment-linear", "image.luks-segment", _put(*_SEGMENT, "type", value="linear")),
    ("segment-opal", "image.luks-integrity", _put(*_SEGMENT, "type", value="hw-opal-crypt")),
    ("segment-integrity", "image.luks-integrity", _put(*_SEGMENT, "integrity", value={"type": "hmac(sha256)"})),
    ("segment-null", "image.luks-null-cipher", _put(*_SEGMENT, "encryption", value="cipher_null-ecb")),
    ("sector-size", "image.luks-segment", _put(*_SEGMENT, "sector_size", value=8192)),
    ("json-size", "image.luks-metadata", _put("config", "json_size", value="99999999999999999999")),
)  # fmt: skip


def _foreign(host: str) -> Iterator[Crafted]:
    """Other formats: declared as such, as raw (CVE-2024-40767), as qcow2, inside of a qcow2, and two at once."""
    for name, data in others(host).items():
        declared = Declared(name.split("-")[0])
        yield Crafted(f"{name}-declared", declared, data, "image.format-unsupported")
        yield Crafted(f"{name}-as-raw", RAW, data, "image.format-mismatch")
        yield Crafted(f"{name}-as-qcow2", QCOW2, data, "image.format-mismatch")
        if name not in isolated:
            yield Crafted(f"{name}-inside", QCOW2, qcow2_bytes(first=data[:_CLUSTER]), "image.nested-format")
    yield Crafted("qcow2-as-raw", RAW, qcow2_bytes(backing=512, backing_len=9), "image.format-mismatch")
    yield Crafted("qcow2-inside", QCOW2, qcow2_bytes(first=qcow2_bytes(features=4)[:4096]), "image.nested-format")
    yield Crafted("ova", Declared("vmdk", "ova"), b"ovf.ovf".ljust(1024, b"\0"), "image.format-unsupported")
    yield Crafted("compressed-text", Declared("raw", "compressed"), b"no gzip at all", "image.not-compressed")
    yield Crafted("container-docker", Declared("raw", "docker"), bytes(MiB), "image.format-unsupported")
    vdi = bytearray(qcow2_bytes(version=2))
    vdi[64:68] = b"\x7f\x10\xda\xbe"
    yield Crafted("polyglot-qcow2-vdi", QCOW2, bytes(vdi), "image.polyglot")
    yield Crafted("polyglot-vmdk-vdi", RAW, b"KDMV" + bytes(60) + b"\x7f\x10\xda\xbe", "image.polyglot", MiB)
    vhd = qcow2_bytes() + b"conectix".ljust(512, b"\0")
    yield Crafted("polyglot-qcow2-vhd", RAW, vhd, "image.polyglot")
    for name, at, magic in (("gpt", 512, b"EFI PART"), ("iso", 0x8001, b"CD001")):
        both = bytearray(qcow2_bytes())
        both[at : at + len(magic)] = magic
        yield Crafted(f"polyglot-qcow2-{name}", QCOW2, bytes(both), "image.polyglot")
        luks = bytearray(luks1_bytes().ljust(MiB, b"\0"))
        luks[at : at + len(magic)] = magic
        yield Crafted(f"polyglot-luks-{name}", LUKS, bytes(luks), "image.polyglot", 4 * MiB)
    disk = bytearray(MiB)
    disk[510:520], disk[0x8001:0x8006] = b"\x55\xaaEFI PART", b"CD001"
    yield Crafted("hybrid-disk", RAW, bytes(disk), "", content=bytes(disk))
    yield Crafted("gzip-as-raw", RAW, zlib.compress(bytes(MiB)), "", content=zlib.compress(bytes(MiB)))
    yield Crafted("text-naming-a-file", RAW, f'json:{{"file": "{host}"}}\n'.encode(), "")
