"""Questions to code of an operator's own, which may hang: each is waited for only so long, for the caller has others
waiting behind it, in a transaction that holds what they need. A thread that hangs can not be ended; nothing is asked
in its place until it answers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 5.0
"""For all questions about one volume together."""
_Question = tuple[Callable[[], Any], "queue.SimpleQueue[tuple[Any, Exception | None]]"]


class Hangs(Exception):
    """It has not answered."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it has not answered within {seconds:g} s")


class Patience:
    """Asks in a thread of its own; safe for several callers, who are answered one after the other."""

    def __init__(self, name: str, patience_s: float = PATIENCE_S) -> None:
        self._name, self._patience_s = name, patience_s
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._mine = threading.local()
        self._hangs = False

    def ask(self, about: object, question: Callable[[], Any]) -> Any:
        """The answer, or what it raised; raises Hangs. `about` is what all questions of one round have in common."""
        left = self._left(about)
        if self._hangs or left <= 0:
            raise Hangs(self._patience_s)
        self._begin()
        answer: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._questions.put((question, answer))
        try:
            value, error = answer.get(timeout=left)
        except queue.Empty:
            self._hangs = True
            raise Hangs(self._patience_s) from None
        if error is not None:
            raise error
        return value

    def _left(self, about: object) -> float:
        mine = self._mine
        if getattr(mine, "about", None) is not about:
            mine.about, mine.until = about, time.monotonic() + self._patience_s
        return float(mine.until - time.monotonic())

    def _begin(self) -> None:
        """Late, since a process that is forked off has no thread of its parent's."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._answer, name=f"asks {self._name}", daemon=True)
                self._thread.start()

    def _answer(self) -> None:
        while True:
            question, answer = self._questions.get()
            try:
                told: tuple[Any, Exception | None] = (question(), None)
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                told = (None, error)
            self._hangs = False
            answer.put(told)
