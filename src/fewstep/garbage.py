"""When a command looks for garbage: not while it imports libraries, and never through what they made."""

import gc

_WHILE_IMPORTING = 10_000_000
_ORDINARY = 50_000


def begin_command() -> None:
    """Put looking off until :func:`libraries_are_there`; for the process of a command, whose collector is its own.

    The libraries make more than a million objects, nearly all of which stay: looking through them is a fifth of
    starting.
    """
    gc.set_threshold(_WHILE_IMPORTING)


def libraries_are_there() -> None:
    """From now on look for garbage, among what is made from now on; nothing to do but in a command, the first time.

    Whoever makes what may become garbage calls it before: a model is about to be loaded, pictures to be scored.
    A step of training leaves no tensor that only the collector would free.
    """
    if gc.get_threshold()[0] == _WHILE_IMPORTING:
        gc.freeze()
        gc.set_threshold(_ORDINARY)
