"""Signatures of every image format that a tool might recognise, so that "raw" can be refused when it is not."""

from __future__ import annotations

import re

from agent.luks.window import Window

HEAD_BYTES = 4096
TAIL_BYTES = 512

_AT_START: tuple[tuple[str, bytes], ...] = (
    ("qcow", b"QFI\xfb"),
    ("qed", b"QED\0"),
    ("vmdk", b"KDMV"),
    ("vmdk", b"COWD"),
    ("vhdx", b"vhdxfile"),
    ("vhd", b"conectix"),
    ("luks", b"LUKS\xba\xbe"),
    ("luks", b"SKUL\xba\xbe"),
    ("bochs", b"Bochs Virtual HD Image"),
    ("cloop", b"#!/bin/sh\n#V2.0 Format\n"),
    ("parallels", b"WithoutFreeSpace"),
    ("parallels", b"WithouFreSpacExt"),
)
_VDI = b"\x7f\x10\xda\xbe"
_VDI_AT = 0x40
_VMDK_TEXT = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*version[ \t]*=[ \t]*[0-9]", re.ASCII)
_VMDK_TITLE = re.compile(rb"[ \t\r\n]*#[ \t]*Disk[ \t]*DescriptorFile", re.ASCII | re.IGNORECASE)
_DISKS: tuple[tuple[str, int, bytes], ...] = (("gpt", 512, b"EFI PART"), ("iso", 0x8001, b"CD001"))
_AT_END: tuple[tuple[str, int, bytes], ...] = (("vhd", 512, b"conectix"), ("dmg", 512, b"koly"))


def head_formats(head: bytes) -> frozenset[str]:
    """Names of all formats whose signature stands in the first 4096 bytes; `qcow` covers versions 1 to 3."""
    found = {name for name, magic in _AT_START if head.startswith(magic)}
    if head[_VDI_AT : _VDI_AT + 4] == _VDI:
        found.add("vdi")
    if _VMDK_TITLE.match(head) or _VMDK_TEXT.match(head):
        found.add("vmdk")
    return frozenset(found)


def tail_formats(tail: bytes) -> frozenset[str]:
    """Names of formats whose footer stands in the last 512 bytes."""
    return frozenset(name for name, back, magic in _AT_END if tail[-back:].startswith(magic) and len(tail) >= back)


def disk_formats(front: bytes) -> frozenset[str]:
    """What a disk of its own would carry: no business of the header of another format."""
    return frozenset(name for name, at, magic in _DISKS if front[at : at + len(magic)] == magic)


def formats(window: Window) -> frozenset[str]:
    """All formats that `window` could be taken for. A disk with MBR, GPT or ISO 9660 is plain raw."""
    tail = window.read(max(0, window.length - TAIL_BYTES), TAIL_BYTES)
    return head_formats(window.read(0, HEAD_BYTES)) | tail_formats(tail)
