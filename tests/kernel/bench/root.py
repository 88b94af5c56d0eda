"""The guest's root: Debian packages, the kernel and its modules, settings. One ext4 image, never written to."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from tests.kernel.bench import kernel, place, tools
from tests.kernel.bench.place import Unavailable

HERE = Path(__file__).parent
_SOURCES = ("packages.txt", "guest-init", "initrd-init", "root.py", "kernel.py")
_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = {
    "mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "cpio": "cpio",
    "mkfs.ext4": "e2fsprogs", "dpkg-deb": "dpkg", "apt-get": "apt",
}  # fmt: skip
_TO_REACH_ROOT = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_SIZE = "20G"  # sparse

_FILES = {
    "etc/hostname": "bench\n",
    "etc/hosts": "127.0.0.1 localhost bench\n::1 localhost\n",
    "etc/fstab": "",
    "etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2026-01.org.example:bench\n",
    "etc/nvme/hostnqn": "nqn.2014-08.org.nvmexpress:uuid:b1c0ffee-0000-4000-8000-000000000001\n",
    "etc/nvme/hostid": "b1c0ffee-0000-4000-8000-000000000001\n",
    "etc/multipath.conf": "defaults {\n user_friendly_names no\n find_multipaths no\n polling_interval 2\n"
    ' no_path_retry 5\n}\nblacklist {\n devnode "^(ram|loop|fd|sr|zram|dm-|nbd|vd|nvme|md)"\n}\n',
}


def need(what: dict[str, str]) -> None:
    """Unavailable, naming the packages of those tools that are missing."""
    if missing := sorted({package for tool, package in what.items() if not tools.has(tool)}):
        raise Unavailable(f"packages are missing: apt-get install {' '.join(missing)} (make setup does it)")


def image() -> Path:
    """The folder with `vmlinux`, `initrd`, `root.img` and the tree `root`, made where it is not there yet."""
    if platform.machine() != "x86_64":
        raise Unavailable(f"it runs on x86_64, this is {platform.machine()}")
    need(_TOOLS)
    key = place.key_of(*(HERE / name for name in _SOURCES))
    if not (place.cache() / f"root-{key}").exists() and os.geteuid() != 0:
        raise Unavailable("its image is built by root, once: sudo make test-kernel K=nothing")
    return place.made("root", key, _make)


def _make(folder: Path) -> None:
    root = folder / "root"
    with tools.step("Debian packages of the guest"):
        _bootstrap(root)
    with tools.step("the kernel"):
        kernel.unpack(folder, root)
        kernel.write_initrd(folder, root, (HERE / "initrd-init").read_text(), _TO_REACH_ROOT, tools.where("busybox"))
    with tools.step("the root image"):
        configure(root)
        write_image(root, folder / "root.img", _SIZE)


def _bootstrap(root: Path) -> None:
    packages = tools.words((HERE / "packages.txt").read_text().splitlines())
    # A Debian of the same suite knows its mirrors best.
    own = Path("/etc/apt/sources.list.d/debian.sources")
    same = own.exists() and _SUITE in Path("/etc/os-release").read_text()
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    keyring = [f"--keyring={_KEYRING}"] if _KEYRING.exists() else []
    tools.run(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}", *excluded,
        *keyring, "--dpkgopt=force-unsafe-io", _SUITE, root, own if same else os.environ.get("BENCH_MIRROR", _MIRROR),
    )  # fmt: skip
    for rubbish in ("var/lib/apt/lists", "var/cache/apt", "etc/apt/sources.list.d"):
        shutil.rmtree(root / rubbish, ignore_errors=True)


def configure(root: Path) -> None:
    """Settings, the first process, and the user that agents become."""
    for name, content in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name in ("src", "mnt"):
        (root / name).mkdir(exist_ok=True)
    shutil.copy(HERE / "guest-init", root / "sbin/bench-init")
    (root / "sbin/bench-init").chmod(0o755)
    tools.run("chroot", root, "useradd", "--system", "--user-group", "--home-dir", "/var/lib/brickyard", "brickyard")


def write_image(tree: Path, image: Path, size: str) -> None:
    """An ext4 image of a tree, without what only costs time on a disk that is thrown away."""
    options = ("-q", "-F", "-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1,root_owner=0:0")
    tools.run("mkfs.ext4", *options, "-d", tree, image, size)
