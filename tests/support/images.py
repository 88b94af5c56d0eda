"""Small disk images, made on the spot with the real tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

MIB = 1 << 20


def content_of(size: int = 8 * MIB) -> bytes:
    """Half data, half holes."""
    data = bytearray(size)
    for at in range(0, size, 4 * MIB):
        data[at : at + 2 * MIB] = os.urandom(2 * MIB)
    return bytes(data)


def encrypted_qcow2(folder: Path, content: bytes, passphrase: bytes, more: str = "") -> bytes:
    """The bytes of a qcow2 encrypted with LUKS that holds `content`; `more` are options of the format."""
    key, clear, image = folder / "key", folder / "clear", folder / "image.qcow2"
    key.write_bytes(passphrase)
    clear.write_bytes(content)
    secret = ["--object", f"secret,id=s,file={key}"]
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10" + (f",{more}" if more else "")
    qemu_img("create", "-q", "-f", "qcow2", *secret, "-o", options, str(image), str(len(content)))
    target = f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s"
    source = f"driver=raw,file.filename={clear}"
    qemu_img("convert", "-n", *secret, "--image-opts", source, "--target-image-opts", target)
    made = image.read_bytes()
    for path in (key, clear, image):
        path.unlink()
    return made


def decrypted(folder: Path, volume: Path, passphrase: bytes, size: int) -> bytes:
    """The first `size` clear bytes of a raw LUKS volume."""
    key, out = folder / "key", folder / "clear"
    key.write_bytes(passphrase)
    source = f"driver=luks,file.filename={volume},key-secret=s"
    qemu_img("dd", "--object", f"secret,id=s,file={key}", "--image-opts", "-O", "raw", "bs=1M",
          f"count={size >> 20}", f"if={source}", f"of={out}")  # fmt: skip
    found = out.read_bytes()
    for path in (key, out):
        path.unlink()
    return found


def qemu_img(*argv: Any) -> None:
    """Run it until it is lucky: on a busy machine most of its tries to make a LUKS header fail."""
    for _ in range(2000):
        done = subprocess.run(["qemu-img", *map(str, argv)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        assert "accurate CPU usage" in done.stderr, done.stderr
    raise AssertionError("qemu-img could not make a LUKS header")
