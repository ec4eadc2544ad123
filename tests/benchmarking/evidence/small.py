"""A study that takes seconds: two updates of two methods, judged by two pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.evidence.study import Curve, Group, Method, Study
from benchmarks.evidence.task import Figures, digits

from fewstep.sampling import sample
from tests.demo.small import SMALL


def mean_pixels(student: Path, steps: int, folder: Path) -> Sequence[Figures]:
    """Figures that only tell students apart, for two noise seeds."""
    pictures = (sample(student, "a red handwritten three", steps=steps, seed=seed)[0] for seed in (0, 1))
    return [dict.fromkeys(TASK.figures, float(np.asarray(picture).mean())) for picture in pictures]


TASK = replace(digits(SMALL), measure=mean_pixels)
STUDY = Study(
    task="digits",
    reference="whole",
    curves={"ca": Curve("terms.ca.scale", (1.0, 2.0))},
    groups=(
        Group(
            "methods",
            seeds=(0, 1),
            steps=(2, 1),
            methods=(
                Method("whole", curve="ca", published=9.561),
                Method("without cdm", ("terms.cdm=null",), "ca", published=9.153),
            ),
        ),
        Group("ablations", seeds=(0,), steps=(2,), methods=(Method("without ca", ("terms.ca=null",)),)),
    ),
    # constant rates: how far a training has come does not depend on how far it is to go
    overrides=(
        "batch=4",
        "schedule.max_steps=3",
        "budget.student_updates=2",
        "student.lr_schedule=constant",
        "fake_score.lr_schedule=constant",
    ),
)
