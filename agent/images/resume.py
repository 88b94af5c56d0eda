"""Going on with a conversion that was killed: which file it wrote to, and how much of its content is safe there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.copying.model import Checkpoint


@dataclass(frozen=True, slots=True)
class Resume:
    """`file` names what was written to (of a LUKS volume its header's uuid), `done` the bytes that are safe in it.

    `save(file, done)` is awaited after those bytes were synced.
    """

    save: Callable[[str, int], Awaitable[None]]
    file: str = ""
    done: int = 0

    def checkpoint(self, file: str) -> Checkpoint:
        """For a copy into `file`, from its beginning unless it is the file that was spoken of."""

        async def note(done: int) -> None:
            await self.save(file, done)

        return Checkpoint(self.done if file == self.file else 0, note)


async def _nowhere(file: str, done: int) -> None:
    """Nothing is noted: such a conversion begins again."""


NEVER = Resume(_nowhere)
