"""The demo's quality protocol: one for real data, for the teacher and for every student, so that rows compare.

A row is measured on 1,400 pictures of the 70 full prompts (20 each) and on 1,400 pictures of the 10 prompts that
leave the colour open (140 each), and is the mean over three noise seeds. Pictures and figures are those of evaluation;
the reference is 1,400 pictures made from digits that neither teacher nor classifier saw, and the row of real data is
made from yet other ones.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.console import Console

from fewstep.evaluation.folder import EvaluationFolder, Extras, Task
from fewstep.evaluation.generate import generate
from fewstep.evaluation.models import resolve
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.evaluation.ranks import Ranks
from fewstep.evaluation.scoring import score
from fewstep.sampling.model_spec import ModelSpec
from fewstep.scores.metric import Metric
from fewstep.scores.registry import create_metrics

NOISE_SEEDS = (1000, 1001, 1002)
BATCH = 32
"""Pictures per call: on one thread the fastest of 16 to 350 for the embedded network, 0.7 ms per forward."""


@dataclass(frozen=True)
class Row:
    """What the protocol measures of one model, or of real data.

    Attributes:
        fd: Frechet distance to the reference.
        kd: Kernel distance to the reference, times 1000.
        accuracy: Share of the full prompts' pictures whose digit and colour the classifier recognises.
        precision, recall, density, coverage: Neighbourhood shares with ``k = 5``.
        diversity: Spread of the pictures of one open prompt, relative to real pictures.
        tv: Total variation between the colours of the open prompts' pictures and equal shares, the law of the data.
        guidance: Guidance scale; None for real data, 1 is none.
        n: Pictures of each of the two sets.
    """

    fd: float
    kd: float
    accuracy: float
    precision: float
    recall: float
    density: float
    coverage: float
    diversity: float
    tv: float
    guidance: float | None
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return asdict(self)


METRICS = tuple(field.name for field in fields(Row) if field.name not in ("guidance", "n"))
_CALLED_HERE = {"fid": "fd", "kid": "kd", "digits": "accuracy", "spread": "diversity", "colours": "tv"}
"""Figures of evaluation that have a shorter name in a row."""


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of every metric; guidance and number of pictures are those of the first row."""
    means = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in METRICS}
    return Row(**means, guidance=rows[0].guidance, n=rows[0].n)


@dataclass(frozen=True)
class Part:
    """Prompts of one kind, and what is measured of their pictures.

    Attributes:
        prompts: Name of the prompt set.
        copies: Pictures of each prompt.
        metrics: Names.
    """

    prompts: str
    copies: int
    metrics: tuple[str, ...]

    @property
    def num_pictures(self) -> int:
        """With one noise seed."""
        return self.copies * len(load_prompt_set(self.prompts).items)

    def create_metrics(self) -> tuple[Metric, ...]:
        """The metrics over the embedded classifier, which reads 256 pictures at a time."""
        over = {name: {"extractor": "digits"} for name in self.metrics if name not in ("digits", "colours")}
        return create_metrics(self.metrics, {name: {"batch": 256, **over.get(name, {})} for name in self.metrics})

    def task(self, noise_seed: int) -> Task:
        """The pictures of one noise seed; ``fewstep sample --seed`` with a picture's own seed draws the same one."""
        seeds = tuple(1000 * noise_seed + copy for copy in range(self.copies))
        return Task(load_prompt_set(self.prompts), seeds, Extras(ladder=(), strip_seeds=0, strip_prompts=0))


FULL = Part("digits", 20, ("fid", "kid", "digits", "prdc"))
OPEN = Part("digits-open", 140, ("spread", "colours"))


@dataclass(frozen=True)
class Protocol:
    """How a row is measured; the default is what every row is measured with.

    Attributes:
        real_diversity: Spread of real pictures of an open prompt, in units of the features.
    """

    real_diversity: float
    full: Part = FULL
    open: Part = OPEN
    noise_seeds: tuple[int, ...] = NOISE_SEEDS

    @property
    def num_pictures(self) -> int:
        """Of both parts, with all noise seeds."""
        return len(self.noise_seeds) * (self.full.num_pictures + self.open.num_pictures)

    def measure(self, model: ModelSpec, work: Path) -> tuple[Row, ...]:
        """The rows of a model, one for each noise seed.

        Args:
            model: As evaluation is asked for it, with its guidance scale; drawn on the CPU.
            work: Folder for the pictures; those that a stopped measurement has left are not drawn again.
        """
        return tuple(
            self.row(
                {**figures(model, self.full, seed, work), **figures(model, self.open, seed, work)},
                guidance=model.guidance_scale,
            )
            for seed in self.noise_seeds
        )

    def row(self, found: Mapping[str, float], *, guidance: float | None) -> Row:
        """The row of some pictures, from the figures of both parts."""
        named = {_CALLED_HERE.get(name, name): value for name, value in found.items()}
        named["diversity"] /= self.real_diversity
        return Row(**named, guidance=guidance, n=self.full.num_pictures)


def figures(model: ModelSpec, part: Part, noise_seed: int, work: Path) -> dict[str, float]:
    """Draw a model's pictures of one part with one noise seed, and measure them."""
    named = model.model_copy(update={"name": "model"})
    task, folder = part.task(noise_seed), EvaluationFolder(work / f"{part.prompts}-{noise_seed}")
    models, alone, quiet = [(named, resolve(named, "student"))], Ranks(), Console(quiet=True)
    generate(folder, task, models, batch=BATCH, ranks=alone, console=quiet, device="cpu")
    scored = score(folder, task, folder.records(), part.create_metrics(), ranks=alone, console=quiet, device="cpu")
    shutil.rmtree(folder.path)
    return {name: value for one in scored for name, value in one.figures.items()}
