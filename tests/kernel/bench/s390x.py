"""The big-endian guest: Debian for IBM Z, on virtio-ccw devices."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tests.kernel.bench import kernel, place, root, tools
from tests.kernel.bench.machine import Arch
from tests.kernel.bench.place import BuildFailed, Unavailable

HERE = Path(__file__).parent
ARCH = Arch(
    "s390x",
    ("qemu-system-s390x", "-machine", "s390-ccw-virtio", "-cpu", "max"),
    "ccw",
    ("-device", "sclpconsole,chardev=console"),
    "quiet panic=-1 audit=0 random.trust_cpu=on net.ifnames=0",
    "cpython-311",
)
_SUITE = "bookworm"
_MIRROR = os.environ.get("BENCH_MIRROR", "http://deb.debian.org/debian")
_SOURCES = ("packages-s390x.txt", "guest-init", "initrd-init", "root.py", "kernel.py", "s390x.py")
_TOOLS = {
    "mmdebstrap": "mmdebstrap", "qemu-system-s390x": "qemu-system-misc", "qemu-s390x-static": "qemu-user-static",
    "cpio": "cpio", "mkfs.ext4": "e2fsprogs",
}  # fmt: skip
_TO_REACH_ROOT = ("virtio_blk", "ext4", "crc32c_generic")
# Parts of the kernel's modules that this guest has a use for.
_MODULES = (
    "arch", "block", "crypto", "lib", "drivers/s390", "drivers/block", "drivers/char", "drivers/md", "drivers/nvme",
    "drivers/scsi", "drivers/target", "drivers/net/dummy.ko", "drivers/net/veth.ko", "fs/configfs", "fs/ext4",
    "fs/jbd2", "fs/mbcache.ko", "net/core",
)  # fmt: skip
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MAGIC = (
    r":qemu-s390x:M::\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16:"
    r"\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff:/usr/bin/qemu-s390x-static:OCF"
)


def image() -> Path:
    """As `root.image()`, for this processor."""
    root.need(_TOOLS)
    key = place.key_of(*(HERE / name for name in _SOURCES))
    if not (place.cache() / f"s390x-{key}").exists() and os.geteuid() != 0:
        raise Unavailable("its image is built by root, once")
    return place.made("s390x", key, _make)


def _make(folder: Path) -> None:
    tree = folder / "root"
    _let_foreign_programs_run()
    with tools.step("Debian packages of the s390x guest (its programs are emulated: some minutes)"):
        packages = tools.words((HERE / "packages-s390x.txt").read_text().splitlines())
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        tools.run(
            "mmdebstrap", "--quiet", "--mode=root", "--skip=check/qemu", "--architectures=s390x", "--variant=minbase",
            *excluded,
            "--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}", _SUITE, tree, _MIRROR,
        )  # fmt: skip
        for rubbish in ("var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(tree / rubbish, ignore_errors=True)
    with tools.step("the s390x kernel"):
        _unpack_kernel(folder, tree)
        kernel.write_initrd(folder, tree, (HERE / "initrd-init").read_text(), _TO_REACH_ROOT, folder / "busybox")
    with tools.step("the s390x root image"):
        root.configure(tree)
        root.write_image(tree, folder / "root.img", "6G")


def _let_foreign_programs_run() -> None:
    """The kernel starts s390x programs by qemu-user; the entry stays until this machine's next boot."""
    try:
        if not (_BINFMT / "register").exists():
            tools.run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
        if not (_BINFMT / "qemu-s390x").exists():
            (_BINFMT / "register").write_text(_MAGIC)
    except (BuildFailed, OSError) as error:
        raise Unavailable(f"this kernel can not be told to run s390x programs (binfmt_misc): {error}") from error


def _unpack_kernel(folder: Path, tree: Path) -> None:
    """`vmlinux`, the modules, and a static `busybox`, fetched by an apt that thinks of the other processor."""
    work = folder / "kernel"
    for name in ("lists/partial", "archives", "debs"):
        (work / name).mkdir(parents=True)
    sources = work / "sources.list"
    sources.write_text(f"deb [arch=s390x] {_MIRROR} {_SUITE} main\n")
    apt = [
        "-qq", "-oAPT::Architecture=s390x", "-oAPT::Architectures=s390x", f"-oDir::State::Lists={work / 'lists'}",
        f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=-", "-oDir::Etc::PreferencesParts=-",
    ]  # fmt: skip
    tools.run("apt-get", *apt, "update")
    said = tools.run("apt-cache", *apt[1:], "depends", "linux-image-s390x").decode()
    found = re.search(r"Depends: (linux-image-[0-9]\S*-s390x)", said)
    if not found:
        raise BuildFailed(f"apt knows no kernel for s390x:\n{said}")
    tools.run("apt-get", *apt, "download", found[1], "busybox-static", cwd=work / "debs")
    for archive in (work / "debs").glob("*.deb"):
        tools.run("dpkg-deb", "-x", archive, work / "tree")
    [modules] = (work / "tree/lib/modules").iterdir()
    shutil.copy(work / "tree/boot" / f"vmlinuz-{modules.name}", folder / "vmlinux")
    shutil.copy(work / "tree/bin/busybox", folder / "busybox")
    to = tree / "usr/lib/modules" / modules.name
    for part in _MODULES:
        source, wanted = modules / "kernel" / part, to / "kernel" / part
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, wanted, symlinks=True, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, wanted)
    for name in modules.glob("modules.*"):
        shutil.copy(name, to)
    tools.run("chroot", tree, "depmod", modules.name)
    (folder / "kernel-version").write_text(modules.name)
    shutil.rmtree(work)
