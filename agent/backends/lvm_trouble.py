"""What is wrong with a back end, remembered for people until it works again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

from agent.backends.base import Trouble
from agent.base.errors import BrickyardError
from agent.privsep.errors import DeviceHeld, GroupFull, PrivilegeTimeout, VerbRefused, VolumeMissing

_ORDINARY = (VolumeMissing, DeviceHeld, GroupFull, VerbRefused)
_HUNG_S = 600.0


class Troubles:
    """Failures of calls, and states that are looked at (`set`); one entry for each code."""

    def __init__(self) -> None:
        self._failed: dict[str, Trouble] = {}
        self._states: dict[str, Trouble] = {}

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Around a call: a failure that is not about one volume is noted, success ends what was noted.

        A command that hung stays noted for ten minutes: others may well succeed meanwhile.
        """
        try:
            yield
        except _ORDINARY:
            raise
        except BrickyardError as error:
            self._failed[error.code] = _of(error, self._failed.get(error.code), keep=not _hung(error))
            raise
        self._failed = {code: one for code, one in self._failed.items() if _is_hung(one)}

    def set(self, code: str, errors: Iterable[BrickyardError]) -> None:
        """The state of that code is now this: nothing wrong when there are none."""
        found = list(errors)
        before = self._states.pop(code, None)
        if found:
            told = _of(found[0], before, keep=True)
            words = " ".join(str(error) for error in found)
            self._states[code] = Trouble(code, words, told.remedy, told.since)

    def listed(self) -> list[Trouble]:
        return [*self._failed.values(), *self._states.values()]


def _hung(error: BrickyardError) -> bool:
    return isinstance(error, PrivilegeTimeout)


def _is_hung(trouble: Trouble) -> bool:
    return trouble.code.startswith("privilege.") and time.time() - trouble.since < _HUNG_S


def _of(error: BrickyardError, before: Trouble | None, *, keep: bool) -> Trouble:
    since = before.since if before is not None and keep else time.time()
    return Trouble(error.code, str(error), error.remedy, since)
