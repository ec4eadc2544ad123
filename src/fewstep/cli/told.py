"""Who talks to the user when a launcher started several processes that all meet the same thing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fewstep.errors import FewstepError


def is_first_here() -> bool:
    """Whether this process is the first of its machine, or the only one; known before anything is loaded."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


@contextmanager
def told_once_a_machine() -> Iterator[None]:
    """Around what every process of a machine reads alike, such as the settings: one of them tells what is wrong."""
    try:
        yield
    except FewstepError as error:
        error.told = not is_first_here()
        raise
