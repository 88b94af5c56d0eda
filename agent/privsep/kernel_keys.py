"""Secrets that the kernel is to use, told by its own key store: in the text of a command others could read them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_ADD, _CONTROL = {"x86_64": (248, 250), "s390x": (278, 280)}.get(os.uname().machine, (217, 219))
_OF_THREAD, _UNLINK = -1, 9
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def held(kind: str, name: str, payload: bytes) -> Iterator[None]:
    """For this thread alone, and for as long as this lasts, the kernel finds a key of that kind and name. OSError."""
    words = (ctypes.c_char_p(kind.encode()), ctypes.c_char_p(name.encode()), payload, ctypes.c_size_t(len(payload)))
    number = _called(_ADD, *words, ctypes.c_int(_OF_THREAD))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _called(_CONTROL, ctypes.c_int(_UNLINK), ctypes.c_int(number), ctypes.c_int(_OF_THREAD))


def _called(call: int, *args: object) -> int:
    done: int = _libc.syscall(ctypes.c_long(call), *args)
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done
