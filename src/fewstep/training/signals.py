"""Requests to stop: a signal sets a flag, and the loop stops between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Which signal asked the run to stop, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C; the others are a scheduler's wish to save and end well."""
        return self.signal is signal.SIGINT


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGUSR1 and the first Ctrl-C into a request; a second Ctrl-C interrupts at once.

    Handlers can only be set in the main thread; elsewhere the request stays empty and the host decides.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
