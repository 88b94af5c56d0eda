"""Payloads moved between formats by qemu-img: descriptors for files, memory for secrets, every format named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.base.log import get_logger
from agent.copying.errors import DestinationFull, translated
from agent.host import tools
from agent.host.errors import ToolFailed
from agent.host.run import run
from agent.luks.cancelling import unless_cancelled
from agent.luks.errors import BadSecret, ConversionBusy, ConversionFailed
from agent.luks.meter import Meter, Report

Driver = Literal["raw", "qcow2", "luks"]
TRIES = 5
MEMORY = 2 << 30
_UNLUCKY = "Unable to get accurate CPU usage"
_PERCENT = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")

tools.declare(tools.Tool("prlimit", "util-linux", "bounds the memory of tools that read foreign images"))


@dataclass(frozen=True, slots=True)
class Node:
    """One side of a conversion: an open file, its format, the passphrase when it is encrypted.

    `offset` is where in the file it begins, in bytes.
    """

    fd: int
    driver: Driver
    key: bytes | None = field(default=None, repr=False)
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """How a conversion is followed and bounded. `lock_fd` is inherited by the tool; `rate_limit` in bytes a second."""

    report: Report
    cancel: asyncio.Event
    timeout_s: float = 6 * 3600.0
    lock_fd: int | None = None
    phase: str = "convert"
    rate_limit: int | None = None


async def convert(
    source: Node, target: Node, *, clear_bytes: int, usable: int, target_zero: bool, watch: Watch
) -> None:
    """Write the clear content of `source` (`clear_bytes`) to the existing `target`, then zeros up to `usable` bytes.

    `target_zero` says that what is not written reads as zeros; it is false for an encrypted target, where zeros
    are written as any other data. On return all is synced. Raises CopyCancelled, DestinationFull, ConversionBusy,
    ConversionFailed, BadSecret.
    """
    tail = -1
    try:
        inputs = [source]
        if usable > clear_bytes and not target_zero:
            tail = os.memfd_create("zeros", os.MFD_CLOEXEC)
            os.ftruncate(tail, usable - clear_bytes)
            inputs.append(Node(tail, "raw"))
        meter = Meter(watch.phase, usable, watch.report)
        argv, secrets = command(inputs, target, target_zero=target_zero, rate_limit=watch.rate_limit)
        fds = [target.fd, *(node.fd for node in inputs)]
        await unless_cancelled(_attempts(argv, secrets, fds, meter, watch), watch.cancel, usable)
        try:
            await asyncio.to_thread(os.fsync, target.fd)
        except OSError as failure:
            raise translated(failure, "destination") from failure
        meter.at(usable, final=True)
    finally:
        if tail >= 0:
            os.close(tail)


async def _attempts(
    argv: Sequence[str], secrets: dict[str, bytes], fds: Sequence[int], meter: Meter, watch: Watch
) -> None:
    def heard(piece: bytes) -> None:
        found = _PERCENT.findall(piece)
        if found:
            meter.at(int(float(found[-1]) / 100 * meter.total))

    for _ in range(TRIES):
        try:
            await run(
                argv,
                timeout=watch.timeout_s,
                secrets=secrets,
                pass_fds=fds,
                lock_fd=watch.lock_fd,
                on_output=heard,
            )
        except ToolFailed as failure:
            words = str(failure.context.get("stderr", ""))
            if _UNLUCKY in words:
                continue
            # The tool's words may quote the image; they go to the log of this host alone.
            get_logger(__name__).warning("conversion.failed", words=words)
            if "No space left" in words or "Disk quota" in words:
                raise DestinationFull from None
            raise ConversionFailed(reason=f"qemu-img ended with {failure.context.get('ending')}") from None
        else:
            return
    raise ConversionBusy(tries=TRIES)


def command(
    inputs: Sequence[Node], target: Node, *, target_zero: bool, rate_limit: int | None = None
) -> tuple[list[str], dict[str, bytes]]:
    """The argument list and the secrets it refers to. Raises BadSecret when qemu could not take a passphrase."""
    argv = ["prlimit", f"--as={MEMORY}", "--core=0", "--", tools.find("qemu-img"), "convert", "-p", "-n"]
    secrets: dict[str, bytes] = {}
    # Zeros that have to be written count as progress only with `-S 0`.
    argv += ["--target-is-zero"] if target_zero else ["-S", "0"]
    if rate_limit is not None:
        argv += ["-r", str(rate_limit)]
    options = []
    for index, node in enumerate([*inputs, target]):
        name = f"s{index}"
        if node.key is not None:
            secrets[name] = _text(node.key)
            argv += ["--object", f"secret,id={name},file={{secret:{name}}}"]
        options.append(_options(node, name))
    return [*argv, "--image-opts", *options[:-1], "--target-image-opts", options[-1]], secrets


def _options(node: Node, secret: str) -> str:
    parts = [f"driver={node.driver}"]
    below = "file."
    if node.offset:
        parts += ["file.driver=raw", f"file.offset={node.offset}"]
        below = "file.file."
    parts += [f"{below}driver={'host_device' if _is_device(node.fd) else 'file'}", f"{below}filename=/dev/fd/{node.fd}"]
    if node.key is not None:
        prefix = "encrypt." if node.driver == "qcow2" else ""
        parts += ["encrypt.format=luks"] if prefix else []
        parts.append(f"{prefix}key-secret={secret}")
    return ",".join(parts)


def _is_device(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISBLK(os.fstat(fd).st_mode)
    return False


def _text(key: bytes) -> bytes:
    try:
        if "\0" in key.decode():
            raise BadSecret(reason="it holds a zero byte")
    except UnicodeDecodeError:
        raise BadSecret(reason="it is not UTF-8 text") from None
    return key
