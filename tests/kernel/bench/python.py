"""The project's Python environment for the guest: the versions that the tests of this machine use, as an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from tests.kernel.bench import place, tools
from tests.kernel.bench.place import ROOT, BuildFailed, Unavailable
from tests.kernel.bench.root import write_image

_PYTHON = "3.11"  # of the guest's Debian
_PLATFORMS = ("manylinux_2_36_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")
# Never needed inside, and large.
_OUTSIDE = {
    "brickyard",
    "mypy",
    "mypy-extensions",
    "ruff",
    "grimp",
    "towncrier",
    "pip",
    "wheel",
    "setuptools",
    "librt",
    "ast-serialize",
}
FROM_SOURCE = {"forbiddenfruit"}  # pure Python, published as source alone
_PROJECT = ("pyproject.toml", "README.md", "LICENSE")


def image(base: Path) -> Path:
    """`python.img`: what is mounted at /src/.venv of a guest whose root lies in `base`."""
    wanted = versions()
    scripts = re.search(
        r"^\[project.scripts\]\n(.+?)\n\n", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    # Not of the root: its Python stays the same as long as its Debian does.
    key = place.key_of("\n".join(wanted), scripts[1] if scripts else "", Path(__file__))
    if not (place.cache() / f"python-{key}").exists() and os.geteuid() != 0:
        raise Unavailable("its Python environment is built by root: sudo make test-kernel K=nothing")
    return place.made("python", key, lambda folder: _make(folder, base, wanted)) / "python.img"


def versions() -> list[str]:
    """Names and versions of all that is installed here, as requirements."""
    found = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in distributions()}
    return ["setuptools>=77", *sorted(f"{name}=={version}" for name, version in found.items() if name not in _OUTSIDE)]


def _make(folder: Path, base: Path, wanted: list[str]) -> None:
    with tools.step("Python packages of the guest"):
        wheels = folder / "wheels"
        _download(wheels, wanted)
        tree = folder / "venv"
        _install(base / "root", folder, wheels, tree)
        write_image(tree, folder / "python.img", "2G")
        for rest in (wheels, tree):
            shutil.rmtree(rest)


def _download(wheels: Path, wanted: list[str]) -> None:
    """Fetched outside, where pip knows its index."""
    source = [each for each in wanted if each.partition("==")[0] in FROM_SOURCE]
    chosen = [f"--platform={name}" for name in _PLATFORMS]
    target = ["--only-binary=:all:", f"--python-version={_PYTHON}", "--implementation=cp", *chosen]
    pip("download", *target, "-d", str(wheels), *(each for each in wanted if each not in source))
    if source:
        pip("wheel", "--use-pep517", "-w", str(wheels), *source)


def pip(what: str, *arguments: str) -> None:
    """One of pip's commands on exactly these packages. BuildFailed with what it said."""
    command = [sys.executable, "-m", "pip", what, "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise BuildFailed("pip could not fetch the packages for the guest:\n" + "\n".join(errors))


def _install(root: Path, folder: Path, wheels: Path, tree: Path) -> None:
    """Installed inside the root, so that every path and script is as the guest will see it."""
    source = folder / "project"
    source.mkdir()
    for name in _PROJECT:
        shutil.copy(ROOT / name, source)
    for name in ("agent", "coordinator", "systemd", "rootwrap.d"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    tree.mkdir()
    pip = "/src/.venv/bin/python -m pip install --quiet --no-index --no-deps --disable-pip-version-check"
    # In a mount namespace of its own: whatever happens, nothing stays mounted.
    script = f"""set -eu
mount --bind {source} {root}/src
mkdir -p {root}/src/.venv
mount --bind {tree} {root}/src/.venv
mkdir {root}/src/wheels
mount --bind {wheels} {root}/src/wheels
chroot {root} sh -euc '
python3 -m venv /src/.venv
{pip} --no-warn-script-location /src/wheels/*.whl
{pip} --no-build-isolation -e /src
python3 -m compileall -q -j 0 /src/.venv/lib || true
'
"""
    tools.run("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
    shutil.rmtree(source)
