"""Progress bars of work that has several stages, the next opened when it begins."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mer_runtime.closing import Closing
from mer_runtime.console import progress


class StageBars(Closing):
    """A context whose ``show(stage, done, total)`` draws one bar a stage."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self._stack = ExitStack()
        self._stage: str | None = None
        self._bar: Any = None

    def close(self) -> None:
        self._stack.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar to ``done`` of ``total``."""
        if stage != self._stage:
            self._stack.close()
            self._stage = stage
            self._bar = self._stack.enter_context(progress(length=total, label=self.labels[stage]))
        self._bar.update(done - self._bar.pos)

    def relabel(self, stage: str) -> None:
        """Show what ``labels`` says now, if the stage's bar is open."""
        if stage == self._stage:
            self._bar.label = self.labels[stage]
