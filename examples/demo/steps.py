"""The numbered, timed steps of the story, printed as they happen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.text import Text

from examples.demo.figures import StepFigures

__all__ = ["Steps"]


class Steps:
    """Prints a heading for each step and, when it ends, how long it took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.taken: list[StepFigures] = []
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first step could have begun."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        begin = time.monotonic()
        self.console.print(Text(f"\n{len(self.taken) + 1}. {title}", style="bold"))
        yield
        taken = time.monotonic() - begin
        self.taken.append(StepFigures(title, taken))
        self.console.print(Text(f"   {taken:.1f} s", style="dim"))

    def say(self, text: str) -> None:
        self.console.print(Text(f"   {text}"), soft_wrap=True)

    def show(self, drawing: RenderableType) -> None:
        self.console.print(drawing)
