"""Other people's parts: importing them without their remarks, and what they raise over each other as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fewstep.errors import CheckpointError, FewstepError, shown


@contextmanager
def using(model: str, doing: str) -> Iterator[None]:
    """Run the tokenizers, encoders and networks of a model.

    Its files were read, each of them as it should be; that they belong together shows only now: a token beyond the
    encoder's vocabulary, a length that is a text, a width that the network does not take.

    Args:
        model: As the user names it.
        doing: What they are asked for, as in "embed prompts".

    Raises:
        CheckpointError: A part raised something over another.
    """
    try:
        yield
    except (FewstepError, torch.OutOfMemoryError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if type(error).__module__ != "builtins":  # a kind of its own has its own handler
            raise
        said = shown(" ".join(str(error).split()), 300, quoted=False)
        raise CheckpointError(
            f"The parts of {model} do not {doing} together ({type(error).__name__}: {said}). Its files do not belong "
            "to each other, or one was changed; get the model again."
        ) from error


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Hide what transformers says, while a pipeline is imported, about image processors that no pipeline here uses."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
