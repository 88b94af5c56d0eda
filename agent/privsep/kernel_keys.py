"""Secrets that the kernel is to use, told by its own key store: in the text of a command others could read them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

_CALLS = {"x86_64": (248, 250), "s390x": (278, 280), "aarch64": (217, 219)}
_OF_THREAD, _UNLINK = -1, 9
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def held(kind: str, name: str, payload: bytes) -> Iterator[None]:
    """For this thread alone, and for as long as this lasts, the kernel finds a key of that kind and name. OSError."""
    if os.uname().machine not in _CALLS:
        raise OSError(errno.ENOSYS, "the numbers of the calls are not known for this processor")
    add, control = _CALLS[os.uname().machine]
    words = (ctypes.c_char_p(kind.encode()), ctypes.c_char_p(name.encode()), payload, ctypes.c_size_t(len(payload)))
    number = _called(add, *words, ctypes.c_int(_OF_THREAD))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _called(control, ctypes.c_int(_UNLINK), ctypes.c_int(number), ctypes.c_int(_OF_THREAD))


def _called(call: int, *args: object) -> int:
    done: int = _libc.syscall(ctypes.c_long(call), *args)
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done
