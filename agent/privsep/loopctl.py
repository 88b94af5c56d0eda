"""The loop driver's ioctls (linux/loop.h), typed. OSError as the kernel gives it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass

from agent.host import sysfs

READ_ONLY, AUTOCLEAR, DIRECT_IO = 1, 4, 16
_CLR_FD, _SET_STATUS64, _GET_STATUS64, _SET_CAPACITY, _CONFIGURE = 0x4C01, 0x4C04, 0x4C05, 0x4C07, 0x4C0A
_CTL_GET_FREE = 0x4C82
_BLKGETSIZE64 = 0x80081272
_BLKGETDISKSEQ = 0x80081280
# The size is part of these two numbers; s390x, x86, arm64 and riscv share the layout, powerpc and mips do not.
_BLOCK_BYTES = 512  # pinned: the logical sector size of a volume must not follow the host's disk


class _Info64(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sizelimit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_char * 64),
        ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info64),
        ("reserved", ctypes.c_uint64 * 8),
    )


@dataclass(frozen=True, slots=True)
class Status:
    """`name` is the identifier given at configuration; device and inode are those of the backing file."""

    name: str
    device: int
    inode: int
    flags: int


def open_device(number: int, flags: int = os.O_RDWR) -> int:
    return os.open(f"/dev/loop{number}", flags | os.O_CLOEXEC)


def free_number() -> int:
    """A loop device that was free a moment ago (made when all were taken)."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _CTL_GET_FREE)
    finally:
        os.close(control)


def configure(fd: int, backing_fd: int, name: str, flags: int) -> None:
    """Bind in one step; EBUSY when another was faster."""
    config = _Config(fd=backing_fd, block_size=_BLOCK_BYTES)
    config.info.flags = flags
    config.info.file_name = name.encode()
    fcntl.ioctl(fd, _CONFIGURE, config)


def status(fd: int) -> Status | None:
    """None when the device is not bound."""
    info = _Info64()
    try:
        fcntl.ioctl(fd, _GET_STATUS64, info)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return Status(info.file_name.decode(errors="replace"), info.device, info.inode, info.flags)


def clear(fd: int) -> bool:
    """Unbind. False when someone else has the device open; it then stays bound, as before."""
    fcntl.ioctl(fd, _CLR_FD)
    info = _Info64()
    try:
        fcntl.ioctl(fd, _GET_STATUS64, info)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return True
        raise
    # The kernel now waits for the last closer; take that back, so that a refused detach changes nothing.
    info.flags &= ~AUTOCLEAR
    fcntl.ioctl(fd, _SET_STATUS64, info)
    return False


def cut(fd: int, name: str) -> None:
    """Let the device, from now on called `name`, show nothing of its file, and end with the last who has it open.

    EAGAIN (older kernels) when pages were written to it meanwhile.
    """
    info = _Info64()
    fcntl.ioctl(fd, _GET_STATUS64, info)
    info.offset, info.sizelimit, info.file_name = sysfs.NOWHERE, 0, name.encode()
    info.flags |= AUTOCLEAR
    fcntl.ioctl(fd, _SET_STATUS64, info)


def reread_size(fd: int) -> None:
    fcntl.ioctl(fd, _SET_CAPACITY)


def size(fd: int) -> int:
    """Bytes of a block device."""
    return int(struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])


def diskseq(fd: int) -> int | None:
    """The kernel's number of this binding, never used twice; None before Linux 5.15."""
    try:
        return int(struct.unpack("Q", fcntl.ioctl(fd, _BLKGETDISKSEQ, bytes(8)))[0])
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL}:
            return None
        raise
