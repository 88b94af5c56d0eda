"""The project's Python environment for the big-endian guest: unpacked wheels, nothing is run to make it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kernel.bench import place, python, root, tools
from tests.kernel.bench.place import BuildFailed
from tests.kernel.bench.s390x import ARCH

# No wheels for this processor: from Debian (older than the project asks for), or not needed inside.
_FROM_DEBIAN = {"bcrypt", "cryptography", "markupsafe", "msgpack", "psutil"}
_NOT_INSIDE = {
    "eventlet",
    "greenlet",
    "lazy-object-proxy",
    "schemathesis",
    "orjson",
    "setproctitle",
    "time-machine",
    "yappi",
}
_GLIBC = (17, 28, 31, 34, 39, 41)


def image() -> Path:
    """`python.img`: unpacked wheels of this processor, beside what Debian has of them."""
    wanted = [each for each in python.versions() if each.partition("==")[0] not in _FROM_DEBIAN | _NOT_INSIDE]
    key = place.key_of("\n".join(wanted), Path(__file__))
    return place.made("python390", key, lambda folder: _make(folder, wanted)) / "python.img"


def _install_those_there_are(options: list[str], wanted: list[str]) -> None:
    """Few tools of developers are published for this processor; a test that needs one says so itself."""
    while True:
        try:
            return python.pip("install", *options, *wanted)
        except BuildFailed as error:
            missing = re.search(r"No matching distribution found for (\S+)", str(error))
            if not missing or missing[1] not in wanted:
                raise
            print(f"bench: left out, since it is not published for s390x: {missing[1]}", flush=True)
            wanted = [each for each in wanted if each != missing[1]]


def _make(folder: Path, wanted: list[str]) -> None:
    with tools.step("Python packages of the s390x guest"):
        tree = folder / "venv"
        site = tree / "lib/python3.11/site-packages"
        platforms = ["manylinux2014_s390x", *(f"manylinux_2_{version}_s390x" for version in _GLIBC)]
        chosen = ["--only-binary=:all:", "--python-version=3.11", *(f"--platform={name}" for name in platforms)]
        source = [each for each in wanted if each.partition("==")[0] in python.FROM_SOURCE]
        compiled = [each for each in wanted if each not in source]
        _install_those_there_are(["--no-compile", "--implementation=cp", *chosen, "--target", str(site)], compiled)
        for each in source:
            python.pip("install", "--no-compile", "--use-pep517", "--target", str(site), each)
        (site / "brickyard-source.pth").write_text("/src\n")
        (tree / "bin").mkdir()
        (tree / "bin/python").symlink_to("/usr/bin/python3")
        (tree / "bin/python3").symlink_to("python")
        (tree / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.11\n")
        if sys.implementation.cache_tag == ARCH.bytecode:  # it is the same on every processor
            paths = ["-s", str(tree), "-p", "/src/.venv"]
            subprocess.run([sys.executable, "-m", "compileall", "-q", *paths, str(site)], check=False)
        root.write_image(tree, folder / "python.img", "1G")
        shutil.rmtree(tree)
