"""What the terminal shows while an evaluation works: how far, how fast, how long yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Says that so many more pictures are done."""

    def __call__(self, pictures: int) -> None: ...


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f} images/s" if speed < 10 else f"{speed:.0f} images/s")


@contextmanager
def progress_bar(console: Console, title: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """A bar with images per second and the time left.

    Args:
        done: Pictures that were finished before: they fill the bar and do not count as speed.
    """
    if not console.is_terminal:
        console.print(f"{title}: {total - done} of {total} images to do")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda pictures: bar.advance(task, pictures)
