"""What a terminal sees is ours: what libraries remark while they are imported and used asks nothing of our users."""

import logging
import os
import sys
import warnings


def quiet_libraries() -> None:
    """For this process, show our own warnings and the libraries' errors, and nothing else; before they are imported.

    A backend without torchvision, a kernel that bitsandbytes did not find, a function that will be renamed: all these
    are about the libraries. ``python -W`` and ``PYTHONWARNINGS`` show warnings as ever.
    """
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # what writes the records of loggers that nobody gave a handler
    assert logging.lastResort is not None
    logging.lastResort.addFilter(_is_for_the_user)


def _is_for_the_user(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.name.partition(".")[0] == "fewstep"
