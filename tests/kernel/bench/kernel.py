"""Debian's stock kernel, made ready for a quick boot under emulation: unpacked, uncompressed, modules unsigned."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from tests.kernel.bench.place import BuildFailed
from tests.kernel.bench.tools import run

_SIGNED = b"~Module signature appended~\n"
# What a headless machine without hardware never loads; the rest of the tree stays as it is.
_UNUSED = (
    "sound", "arch/x86/kvm", "drivers/gpu", "drivers/media", "drivers/staging", "drivers/iio", "drivers/usb",
    "drivers/bluetooth", "drivers/isdn", "drivers/hwmon", "drivers/thunderbolt", "drivers/comedi", "drivers/input",
    "drivers/platform", "drivers/power", "drivers/mfd", "drivers/leds", "drivers/firewire", "drivers/video",
    "drivers/i2c", "drivers/edac", "drivers/net/wireless", "drivers/net/can", "drivers/net/wwan", "drivers/net/usb",
    "net/wireless", "net/mac80211", "net/bluetooth", "net/can", "net/nfc", "net/batman-adv",
    "fs/ocfs2", "fs/gfs2", "fs/afs", "fs/jfs", "fs/reiserfs", "fs/f2fs", "fs/nilfs2", "fs/orangefs",
)  # fmt: skip
_NETWORK_CARDS = re.compile(r"/net/ethernet/(?!intel/e1000)")


def unpack(folder: Path, root: Path) -> None:
    """Put `vmlinux` into the folder and the modules into the root."""
    package = _newest_package()
    work = folder / "kernel"
    work.mkdir()
    run("apt-get", "-qq", "download", package, cwd=work)
    [archive] = work.glob("*.deb")
    run("dpkg-deb", "-x", archive, work)
    [modules] = (work / "lib/modules").iterdir()
    _write_uncompressed(work / "boot" / f"vmlinuz-{modules.name}", folder / "vmlinux")
    for unused in _UNUSED:
        shutil.rmtree(modules / "kernel" / unused, ignore_errors=True)
    for module in list(modules.rglob("*.ko")):
        if _NETWORK_CARDS.search(str(module)):
            module.unlink()
        else:
            _unsign(module)
    shutil.copytree(modules, root / "lib/modules" / modules.name, symlinks=True)
    run("chroot", root, "depmod", modules.name)
    (folder / "kernel-version").write_text(modules.name)
    shutil.rmtree(work)


def _newest_package() -> str:
    said = run("apt-cache", "depends", "linux-image-amd64").decode()
    if found := re.search(r"Depends: (linux-image-[0-9]\S*-amd64)", said):
        return found[1]
    raise BuildFailed(f"apt knows no kernel of Debian for this processor; apt-get update may help:\n{said}")


def _write_uncompressed(image: Path, to: Path) -> None:
    """The ELF kernel of a bzImage: qemu boots it directly, and nothing is decompressed by an emulated processor."""
    data = image.read_bytes()
    payload, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + payload
    to.write_bytes(lzma.LZMADecompressor().decompress(data[start : start + length]))


def _unsign(module: Path) -> None:
    """Without a signature the kernel does not verify one: under emulation that costs more than the loading."""
    data = module.read_bytes()
    if data.endswith(_SIGNED):
        at = len(data) - len(_SIGNED) - 4
        length = struct.unpack_from(">I", data, at)[0]
        module.write_bytes(data[: at - 8 - length])


def write_initrd(folder: Path, root: Path, init: str, needed: Sequence[str], busybox: Path) -> None:
    """`initrd`: busybox, the modules that lead to the root disk, and `init`."""
    version = (folder / "kernel-version").read_text()
    tree = folder / "initrd.tree"
    for name in ("bin", "modules", "dev", "mnt"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    order: list[str] = []
    for module in needed:
        for line in run("chroot", root, "modprobe", "-S", version, "--show-depends", module).decode().splitlines():
            what, path, *_ = line.split()
            if what == "insmod" and Path(path).name not in order:
                order.append(Path(path).name)
                shutil.copy(root / path.lstrip("/"), tree / "modules")
    (tree / "modules/order").write_text("".join(f"{name}\n" for name in order))
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    names = b"\n".join(str(path.relative_to(tree)).encode() for path in [tree, *sorted(tree.rglob("*"))])
    packed = run("cpio", "-o", "-H", "newc", "--quiet", cwd=tree, stdin=names)
    (folder / "initrd").write_bytes(gzip.compress(packed, 1))
    shutil.rmtree(tree)
