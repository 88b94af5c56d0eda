"""Small files of the formats that are no images here, each naming a file of the host where its format can."""

from __future__ import annotations

import struct

isolated = frozenset({"vhd-fixed", "dmg"})
"""Those known by their end alone, which nothing shows when they lie inside of another image."""


def others(host: str) -> dict[str, bytes]:
    """By name (format, then kind)."""
    return {
        "vmdk-flat": _descriptor("monolithicFlat", f'RW 2048 FLAT "{host}" 0'),
        "vmdk-device": _descriptor("fullDevice", f'RW 2048 FLAT "{host}" 0'),
        "vmdk-split": _descriptor("twoGbMaxExtentFlat", f'RW 2048 FLAT "{host}" 0'),
        "vmdk-parent": _descriptor("monolithicSparse", 'RW 2048 SPARSE "a"', f'parentFileNameHint="{host}"'),
        "vmdk-untitled": f'\n  # nothing\n version = 1\nRW 2048 FLAT "{host}" 0\n'.encode().ljust(65536, b"\0"),
        "vmdk-sparse": _sparse_vmdk(host),
        "vmdk-cow": b"COWD".ljust(65536, b"\0"),
        "vhd-fixed": bytes(65536) + _vhd_footer(2),
        "vhd-dynamic": _vhd_footer(3).ljust(65536, b"\0"),
        "vhd-differencing": _vhd_differencing(host),
        "vhdx-parent": (b"vhdxfile".ljust(65536, b"\0") + host.encode("utf-16-le")).ljust(131072, b"\0"),
        "vdi-parent": b"<<< QEMU VM Virtual Disk Image >>>".ljust(64, b"\0") + b"\x7f\x10\xda\xbe".ljust(65472, b"\0"),
        "qed-backing": (struct.pack("<4sIIIQQQQQII", b"QED\0", 65536, 4, 1, 1, 0, 0, 65536, 1 << 20, 72, len(host))
                        + host.encode()).ljust(65536, b"\0"),
        "parallels": b"WithoutFreeSpace".ljust(65536, b"\0"),
        "parallels-extended": b"WithouFreSpacExt".ljust(65536, b"\0"),
        "bochs": b"Bochs Virtual HD Image\0".ljust(65536, b"\0"),
        "cloop": b"#!/bin/sh\n#V2.0 Format\n".ljust(65536, b"\0"),
        "dmg": bytes(65536) + b"koly".ljust(512, b"\0"),
    }  # fmt: skip


def _descriptor(kind: str, extent: str, more: str = "") -> bytes:
    text = (
        f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="{kind}"\n{more}\n{extent}\n'
    )
    return text.encode().ljust(65536, b"\0")


def _sparse_vmdk(host: str) -> bytes:
    """A sparse extent whose embedded descriptor names another file."""
    head = struct.pack("<4sIIQQQQIQQQB", b"KDMV", 1, 3, 2048, 128, 1, 20, 512, 21, 26, 128, 0)
    return (head.ljust(512, b"\0") + _descriptor("monolithicFlat", f'RW 2048 FLAT "{host}" 0'))[:65536]


def _vhd_footer(kind: int) -> bytes:
    return struct.pack(">8sIIQ", b"conectix", 2, 0x10000, 512).ljust(60, b"\0") + struct.pack(">I", kind) + bytes(448)


def _vhd_differencing(host: str) -> bytes:
    locator = b"cxsparse".ljust(64, b"\0") + host.encode("utf-16-be")
    return (_vhd_footer(4) + locator).ljust(65536, b"\0")
