"""Requests to stop: while something trains, a signal sets a flag, and the loop stops between two steps.

Before that, and in a command that has nothing to save, a signal ends the command with a sentence. This file is imported
before anything heavy, so that the handlers stand from the beginning.
"""

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


class EndedError(SystemExit):
    """SIGTERM or SIGUSR1 where there is nothing to save; no ``except Exception`` of a library catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)  # what a shell says of a command that a signal ended
        self.signal = signal.Signals(number)


_received: list[int] = []


def end_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGUSR1 end this process in good order, until :func:`stop_on_signals` knows better.

    The second SIGTERM is the system's own, in case the first is lost in a library that catches everything. Ctrl-C stays
    ignored where a shell ignores it for what it runs in the background.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        raise EndedError(number)

    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def raise_lost_signal() -> None:
    """Raise what a signal raised before, where something swallowed it: imports hold code that ignores any exception."""
    if _received:
        number = _received.pop()
        raise KeyboardInterrupt if number == signal.SIGINT else EndedError(number)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGUSR1 and the first Ctrl-C into a request; a second Ctrl-C interrupts at once.

    Handlers can only be set in the main thread; elsewhere the request stays empty and the host decides.
    """
    raise_lost_signal()
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
