"""A volume that a guest boots from: one sector of code for a PC's firmware, and a real QEMU that runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECTOR = 512
DONE = 33  # what QEMU ends with: twice what the code wrote to the port, and one
# The firmware reads sector 1 (int 13h, 42h), the code turns over each bit, the firmware writes that as sector 2 (43h);
# then 0x10 (or 0x20 after an error) goes to port 0xf4, by which QEMU ends. Of it, in the assembler's words:
#   xor ax,ax; mov ds,ax; mov es,ax; mov ah,42h; mov si,packet; int 13h; jc failed
#   mov di,8000h; mov cx,512; flip: not byte [di]; inc di; loop flip
#   inc byte [packet+8]; mov ax,4300h; int 13h; jc failed; mov al,10h; jmp out
#   failed: mov al,20h; out: out 0f4h,al; hlt; packet: 10h 00h 0001h 8000h 0000h 1 (of eight bytes)
_CODE = bytes.fromhex(
    "31c08ed88ec0b442be307ccd13721abf0080b90002f61547e2fbfe06387cb80043cd137204b010eb02b020e6f4f4ebfd"
    "10000100008000000100000000000000"
)


def prepare(file: Path) -> bytes:
    """Make what lies in the file bootable; returns what sector 2 has when the code has run."""
    content = os.urandom(SECTOR)
    with file.open("r+b") as out:
        out.write(_CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + content)
    return bytes(byte ^ 0xFF for byte in content)


def run(*devices: str) -> int:
    """Start a machine with these devices and nothing else to boot from; its exit status."""
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-no-reboot"]
    for device in ("isa-debug-exit,iobase=0xf4,iosize=1", *devices):
        argv += ["-device", device]
    return subprocess.run(argv, check=False, timeout=300).returncode
