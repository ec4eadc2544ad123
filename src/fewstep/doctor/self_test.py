"""Does it work here: a few steps of training, and pictures that show what was asked for."""

import tempfile
import time
from collections.abc import Callable

from rich.console import Console

from fewstep.devices import fastest_device
from fewstep.doctor.line import Line
from fewstep.errors import FewstepError, shown

_SETTINGS = (
    "budget.student_updates=1",
    "batch=4",
    "schedule={kind: random_length, min_steps: 2, max_steps: 4}",
    "report={trackers: []}",
    "checkpoint={keep_last: 1}",
)
_ASKED = {"a red handwritten three": (3, 0), "a blue handwritten seven": (7, 2)}
"""Prompts with the digit and the colour that the classifier has to see."""
_REPORT = "if this says nothing to you, report it with what `fewstep doctor --json` prints"


def self_test() -> Line:
    """Train the embedded teacher's student for one update, and let the classifier read what the teacher draws."""
    started = time.perf_counter()
    device = fastest_device()
    for what, part in (("training", _train), ("drawing", _draw)):
        wrong = _outcome(part)
        if wrong is not None:
            return Line("self-test", f"{what} failed on {device}: {wrong}", _REPORT, broken=True)
    seconds = time.perf_counter() - started
    return Line(
        "self-test",
        f"{seconds:.0f} s on {device}: the embedded teacher's student trained for an update and saved, the teacher "
        f"drew {len(_ASKED)} pictures, and its classifier sees {' and '.join(name[2:] for name in _ASKED)}",
    )


def _outcome(part: Callable[[], str | None]) -> str | None:
    """What is wrong, or None."""
    try:
        return part()
    except (FewstepError, ImportError, OSError, RuntimeError) as error:
        return shown(" ".join(f"{type(error).__name__}: {error}".split()), 400, quoted=False)


def _train() -> str | None:
    from fewstep.config.recipe import load_recipe
    from fewstep.training.run import train

    with tempfile.TemporaryDirectory(prefix="fewstep-doctor-") as folder:
        train(load_recipe("digits", _SETTINGS), root=folder, console=Console(quiet=True))
    return None


def _draw() -> str | None:
    import numpy as np
    import torch

    from fewstep.embedded.digits.task import Digits
    from fewstep.sampling.drawing import sample

    pictures = sample("fewstep:digits", list(_ASKED), steps=8, seed=0)
    pixels = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
    seen = Digits().load_judge().predict(pixels)
    found = list(zip(seen.digits.tolist(), seen.colours.tolist(), strict=True))
    if found != list(_ASKED.values()):
        return "the pictures do not show what was asked for, so numbers are computed wrong here"
    return None
