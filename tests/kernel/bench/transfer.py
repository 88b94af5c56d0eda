"""What goes into a guest and what comes out of it: archives, of files alone."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from pathlib import Path

from tests.kernel.bench.place import ROOT

ORDER = ".bench"  # the folder of `command` and `seconds` beside the source


def pack(to: Path, bytecode: str, order: dict[str, str]) -> None:
    """What git knows or would know of the working tree, with the bytecode beside it, and the order: name and text."""
    with tarfile.open(to, "w") as archive:
        for name in _names(bytecode):
            archive.add(ROOT / name, name, recursive=False, filter=_plain)
        for name, text in order.items():
            member = tarfile.TarInfo(f"{ORDER}/{name}")
            member.size = len(text.encode())
            archive.addfile(_plain(member), io.BytesIO(text.encode()))


def _names(bytecode: str) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for path in [Path(name) for name in names if name.endswith(".py")]:
        compiled = path.parent / "__pycache__" / f"{path.stem}.{bytecode}.pyc"
        if _is_of(ROOT / compiled, ROOT / path):
            names.append(str(compiled))
    return names


def _is_of(compiled: Path, source: Path) -> bool:
    """Whether the bytecode was made from the source as it is now."""
    try:
        head, made_from = compiled.read_bytes()[4:16], source.stat()
    except OSError:
        return False
    return head == struct.pack("<III", 0, int(made_from.st_mtime) & 0xFFFFFFFF, made_from.st_size & 0xFFFFFFFF)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, for everyone to read: the agent in the guest runs as somebody else."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o444
    member.mode &= ~0o022
    return member


def unpack(archive: Path, to: Path) -> None:
    """Plain files alone, below `to`; an archive that was cut off gives what it holds."""
    if not archive.exists() or not archive.stat().st_size:
        return
    try:
        with tarfile.open(archive) as files:
            for member in files:
                path = (to / member.name).resolve()
                content = files.extractfile(member) if member.isfile() and to.resolve() in path.parents else None
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
    except (tarfile.TarError, EOFError) as error:
        print(f"bench: the files of the guest came out broken: {error}", flush=True)
