"""Verbs on dm-crypt, by cryptsetup: only for `brickyard-<attachment id>`, only on that attachment's loop device or on
a device of another host.

The secret is an argument of the verb. It travels on the daemon's private socket pair, reaches cryptsetup on stdin,
and is in no argv, environment, log (the daemon logs replies, never arguments) or error. A descriptor would need
CAP_SYS_PTRACE to be fetched from the agent, which is far more than this.
"""

from __future__ import annotations

import os
from typing import Any

from agent.host import sysfs
from agent.privsep import checks, cutting, devices, tool
from agent.privsep.contexts import crypt, privileged
from agent.privsep.errors import CryptFailed, CryptUnavailable, DeviceForeign, DeviceHeld, WrongKey

_NO_KEY, _BUSY = 2, 5  # exit codes of cryptsetup
# A header may name token plugins; none of them is to be loaded as root for somebody else's header.
_BY_KEY = ("--batch-mode", "--disable-external-tokens", "--key-file", "-")


@privileged(crypt)
def crypt_open(
    device: str, diskseq: int | None, attachment_id: str, passphrase: bytes, read_only: bool
) -> dict[str, Any]:
    """Open LUKS on the attachment's device: {device, size (bytes inside), created}.

    WrongKey, CryptFailed, DeviceForeign, CryptUnavailable, VerbRefused.
    """
    name = checks.LOOP_NAME_PREFIX + checks.uuid(attachment_id, "attachment")
    checks.secret(passphrase)
    short, held = devices.hold(device, diskseq, name, remote_too=True)
    try:
        _need_mapper()
        there = sysfs.mapper_device(name)
        if there is None:
            mode = ["--readonly"] if checks.flag(read_only, "read_only") else []
            options = [*_BY_KEY, "--type", "luks", *mode]
            _judge(tool.run("cryptsetup", ["open", *options, "--", device, name], passphrase), "open", device)
        elif there.below != (short,) or not there.uuid.startswith("CRYPT-LUKS"):
            raise DeviceForeign(device=f"/dev/mapper/{name}", reason=f"it stands on {', '.join(there.below)}")
        made = sysfs.mapper_device(name)
        if made is None:
            raise CryptFailed(action="open", device=device, reason="the kernel shows no such device afterwards")
        return {"device": f"/dev/mapper/{name}", "size": made.size, "created": there is None}
    finally:
        os.close(held)


@privileged(crypt)
def crypt_close(attachment_id: str) -> bool:
    """Flush and close; False when it was not open. DeviceHeld, KernelRefused (nothing was changed), CryptFailed.

    One whose paths are all lost is closed without: nothing can be written out, and its header can not be read.
    """
    name = checks.LOOP_NAME_PREFIX + checks.uuid(attachment_id, "attachment")
    there = sysfs.mapper_device(name)
    if there is None:
        return False
    device = f"/dev/mapper/{name}"
    users = sysfs.users_of(there.name)
    if users:
        raise DeviceHeld(device=device, holders=", ".join(users))
    if all(devices.answers(short) for short in there.below):
        devices.flush(there.name)
        _judge(tool.run("cryptsetup", ["close", "--", name]), "close", device)
    else:
        _judge(tool.run("dmsetup", ["remove", "--", name], leashed=False), "close", device)
    if sysfs.mapper_device(name) is not None:
        raise CryptFailed(action="close", device=device, reason="the kernel still shows it")
    return True


@privileged(crypt)
def crypt_cut(attachment_id: str) -> bool:
    """Cut whoever has it open off: reads and writes fail, and nothing stands on what is below; False when not open.

    The device goes with the last who has it open. KernelRefused.
    """
    there = sysfs.mapper_device(checks.LOOP_NAME_PREFIX + checks.uuid(attachment_id, "attachment"))
    if there is not None:
        cutting.cut_off(there, checks.cut_name(attachment_id))
    return there is not None


@privileged(crypt)
def crypt_resize(attachment_id: str, passphrase: bytes) -> int:
    """Let the open device fill its grown loop device; returns bytes inside. WrongKey, CryptFailed, DeviceForeign."""
    name = checks.LOOP_NAME_PREFIX + checks.uuid(attachment_id, "attachment")
    checks.secret(passphrase)
    device = f"/dev/mapper/{name}"
    arguments = ["resize", *_BY_KEY, "--", name]
    if sysfs.mapper_device(name) is None:
        raise DeviceForeign(device=device, reason="it is not open")
    _judge(tool.run("cryptsetup", arguments, passphrase), "resize", device)
    grown = sysfs.mapper_device(name)
    if grown is None:
        raise CryptFailed(action="resize", device=device, reason="the kernel shows no such device afterwards")
    return grown.size


def _need_mapper() -> None:
    if not sysfs.has_mapper():
        raise CryptUnavailable(reason="the kernel has no device-mapper")


def _judge(ended: tool.Ended, action: str, device: str) -> None:
    if ended.code == 0:
        return
    if ended.code == _NO_KEY:
        raise WrongKey(device=device)
    if ended.code == _BUSY or "busy" in ended.stderr.lower():
        raise DeviceHeld(device=device, holders=ended.stderr or "the kernel says busy")
    raise CryptFailed(action=action, device=device, reason=ended.stderr or f"exit code {ended.code}")
