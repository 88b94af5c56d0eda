"""User-mode Linux, made of the source of Debian's kernel: the same drivers, as a program of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.kernel.bench import place, root, tools
from tests.kernel.bench.place import BuildFailed, Unavailable

HERE = Path(__file__).parent
_TOOLS = {
    "gcc": "gcc", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "xz": "xz-utils", "depmod": "kmod",
    "patch": "patch", "dpkg-deb": "dpkg", "apt-get": "apt",
}  # fmt: skip
_CONFIG, _PATCH = HERE / "um.config", HERE / "um.patch"
_REFUSED = "refused"


def image() -> Path:
    """The folder with `linux`, the kernel, and `modules`, what belongs at /lib/modules."""
    root.need(_TOOLS)
    folder = place.made("um", place.key_of(_CONFIG, _PATCH, Path(__file__)), _make)
    if (refused := folder / _REFUSED).exists():
        raise Unavailable(f"it does not start:\n{refused.read_text()}")
    return folder


def _make(folder: Path) -> None:
    work = folder / "work"
    work.mkdir()
    with tools.step("the source of Debian's kernel"):
        source = _source(work)
        _patch(source)
    with tools.step("user-mode Linux (it is compiled: some minutes)"):
        make = ("make", "-s", "ARCH=um", f"-j{os.cpu_count() or 1}")
        tools.run(*make, "defconfig", cwd=source)
        tools.run("scripts/kconfig/merge_config.sh", "-m", ".config", _CONFIG, cwd=source)
        tools.run(*make, "olddefconfig", cwd=source)
        tools.run(*make, "linux", "modules", cwd=source)
        tools.run(*make, f"INSTALL_MOD_PATH={work}", "modules_install", cwd=source)
    shutil.copy(source / "linux", folder / "linux")
    shutil.move(work / "lib/modules", folder / "modules")
    for link in (folder / "modules").glob("*/*"):
        if link.is_symlink():  # to the source, which goes
            link.unlink()
    shutil.rmtree(work)
    _try(folder)


def _patch(source: Path) -> None:
    """Programs start in two thirds of the time; where a later source has another form, it goes without."""
    apply = ("patch", "--batch", "--forward", "-p1", "-i", _PATCH)
    try:
        tools.run(*apply, "--dry-run", cwd=source)
    except BuildFailed as error:
        print(f"bench: it is built without {_PATCH.name}: {error}", flush=True)
    else:
        tools.run(*apply, cwd=source)


def _try(folder: Path) -> None:
    """It traces its programs and maps its memory as program: not every machine lets it. That is kept, as it would be
    compiled again each time to learn the same."""
    argv = [folder / "linux", "mem=64M", "con=null", "con0=null,fd:1", "panic=-1"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    if b"Unable to mount root" not in (said := done.stdout + done.stderr):
        (folder / _REFUSED).write_text(said.decode(errors="replace")[-2000:])


def _source(work: Path) -> Path:
    """The newest that apt knows, with Debian's patches, unpacked."""
    said = tools.run("apt-cache", "search", "--names-only", "^linux-source-[0-9.]+$").decode()
    found = sorted(re.findall(r"^linux-source-(\d+)\.(\d+)", said, re.MULTILINE), key=lambda one: tuple(map(int, one)))
    if not found:
        raise Unavailable("apt knows no source of Debian's kernel; apt-get update may help")
    name = f"linux-source-{'.'.join(found[-1])}"
    tools.run("apt-get", "-qq", "download", name, cwd=work)
    [archive] = work.glob("*.deb")
    tools.run("dpkg-deb", "-x", archive, work)
    tools.run("tar", "-x", "-f", work / f"usr/src/{name}.tar.xz", "-C", work)
    return work / name
