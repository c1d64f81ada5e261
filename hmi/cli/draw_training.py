"""Training in the terminal: a bar with the error and the time left, and a table of what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hmi.training.fidelity import Fidelity

__all__ = ["Reached", "fidelity_table", "training_bar"]


class Reached(Protocol):
    """How far a training is; `loss` is a squared relative error."""

    @property
    def done(self) -> int: ...

    @property
    def loss(self) -> float: ...

    @property
    def seconds_left(self) -> float: ...


@contextlib.contextmanager
def training_bar(steps: int) -> Iterator[Callable[[Reached], None]]:
    """A bar on stderr while the block runs, moved by what is given to the function; none where there are no steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), disable=not steps) as bar:
        task = bar.add_task("", total=steps)

        def show(reached: Reached) -> None:
            left = f"error {reached.loss**0.5:.3f}, {_spoken(reached.seconds_left)} left"
            bar.update(task, completed=reached.done, description=left)

        yield show


def fidelity_table(k: int, before: Fidelity, fitted: Fidelity, after: Fidelity) -> str:
    """Relative errors against the unchanged model, a line for each layer from the k-th."""
    lines = ["error against the unchanged model    converted  fitted  distilled"]
    names = ["after the lookup", *(f"layer {k + number}" for number in range(1, len(after.layers))), "text's mean"]
    columns = [(*each.layers, each.pooled) for each in (before, fitted, after)]
    for name, *values in zip(names, *columns, strict=True):
        lines.append(f"  {name:<34} {values[0]:>9.3f} {values[1]:>7.3f} {values[2]:>10.3f}")
    return "\n".join(lines)


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
