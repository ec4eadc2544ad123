"""The demo's quality protocol: one for real data, for the teacher and for every student, so that rows compare.

A row is measured on 1,400 pictures of the 70 full prompts (20 each) and on 1,400 pictures of the 10 prompts that
leave the colour open (140 each), and is the mean over three noise seeds. The features, digits and colours are those
of the embedded classifier; the reference is 1,400 pictures made from digits that neither teacher nor classifier saw,
and the row of real data is made from yet other ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fewstep.embedded.classifier import DigitClassifier
from fewstep.embedded.prompts import (
    NUM_COLOURS,
    NUM_DIGITS,
    full_prompts,
    open_colour_prompts,
)
from fewstep.sampling.generate import TextToImage
from fewstep.scores.statistics.diversity import histogram, total_variation, within_prompt_diversity
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.kernel import kernel_distance
from fewstep.scores.statistics.prdc import prdc

NOISE_SEEDS = (1000, 1001, 1002)
PICTURES_PER_FULL_PROMPT = 20
PICTURES_PER_OPEN_PROMPT = 140
NEIGHBOURS = 5

Pixels = UInt8[Tensor, "n 3 h w"]
Draw = Callable[[Sequence[str], Sequence[int]], Pixels]
"""Draws one picture per prompt and seed, as bytes; a picture depends on its own prompt and seed only."""
BATCH = 32
"""Pictures per call: on one thread the fastest of 16 to 350 for the embedded network, 0.7 ms per forward."""


def draw_with(model: TextToImage, *, sigmas: Float[Tensor, "k"], guidance_scale: float) -> Draw:
    """Pictures of ``model`` on the grid ``sigmas`` (without the final 0)."""

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        latents = model.latents(prompts, seeds, sigmas=sigmas, guidance_scale=guidance_scale, batch=BATCH)
        return model.pixels(latents, batch=BATCH)

    return draw


@dataclass(frozen=True)
class PromptSet:
    """The prompts of some pictures, one entry per picture.

    Attributes:
        prompts: What is drawn.
        copies: The number of each picture among those of its prompt.
        digits: The digit that each prompt names.
        colours: The colour that each prompt names; None where it leaves the colour open.
    """

    prompts: tuple[str, ...]
    copies: tuple[int, ...]
    digits: Int[Tensor, "n"]
    colours: Int[Tensor, "n"] | None

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def kinds(self) -> Int[Tensor, "n"]:
        """The number of each picture's prompt among the full prompts; of a prompt that names digit and colour."""
        assert self.colours is not None
        return self.digits * NUM_COLOURS + self.colours

    def seeds(self, noise_seed: int) -> list[int]:
        """The seed of each picture's own noise: ``fewstep sample --seed`` with it draws the same picture."""
        return [1000 * noise_seed + copy for copy in self.copies]


def full_set(copies: int = PICTURES_PER_FULL_PROMPT) -> PromptSet:
    """The 70 prompts that name digit and colour, ``copies`` pictures each."""
    kind = torch.arange(NUM_DIGITS * NUM_COLOURS).repeat_interleave(copies)
    return PromptSet(
        prompts=tuple(prompt for prompt in full_prompts() for _ in range(copies)),
        copies=tuple(range(copies)) * (NUM_DIGITS * NUM_COLOURS),
        digits=kind // NUM_COLOURS,
        colours=kind % NUM_COLOURS,
    )


def open_set(copies: int = PICTURES_PER_OPEN_PROMPT) -> PromptSet:
    """The 10 prompts that name a digit and leave the colour open, ``copies`` pictures each."""
    return PromptSet(
        prompts=tuple(prompt for prompt in open_colour_prompts() for _ in range(copies)),
        copies=tuple(range(copies)) * NUM_DIGITS,
        digits=torch.arange(NUM_DIGITS).repeat_interleave(copies),
        colours=None,
    )


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


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of every metric; guidance and number of pictures are those of the first row."""
    means = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in METRICS}
    return Row(**means, guidance=rows[0].guidance, n=rows[0].n)


@dataclass(frozen=True)
class Judge:
    """Everything a row is measured against.

    Attributes:
        classifier: The embedded classifier.
        reference: Features of the reference pictures, the full prompts in turn, as often as there are pictures.
        real_diversity: Within-prompt diversity of real pictures, in units of the features.
        full: The prompts that name digit and colour.
        open: The prompts that leave the colour open.
    """

    classifier: DigitClassifier
    reference: Float[Tensor, "n d"]
    real_diversity: float
    full: PromptSet
    open: PromptSet

    @property
    def _reference_kinds(self) -> Int[Tensor, "n"]:
        return torch.arange(len(self.reference)) % (NUM_DIGITS * NUM_COLOURS)

    def measure(self, full_pixels: Pixels, open_pixels: Pixels, *, guidance: float | None) -> Row:
        """Measure pictures of the full and of the open prompts, in the order of the prompt sets."""
        assert self.full.colours is not None
        full, free = self.classifier.predict(full_pixels), self.classifier.predict(open_pixels)
        neighbours = prdc(self.reference, full.features, k=NEIGHBOURS)
        shares = histogram(free.colours, num_choices=NUM_COLOURS)
        spread = within_prompt_diversity(free.features, self.open.digits)
        return Row(
            fd=frechet_distance(self.reference, full.features),
            kd=kernel_distance(
                self.reference, full.features, real_strata=self._reference_kinds, generated_strata=self.full.kinds
            ),
            accuracy=float(full.matches(self.full.digits, self.full.colours).double().mean()),
            precision=neighbours.precision,
            recall=neighbours.recall,
            density=neighbours.density,
            coverage=neighbours.coverage,
            diversity=spread / self.real_diversity,
            tv=total_variation(shares, torch.full_like(shares, 1 / NUM_COLOURS)),
            guidance=guidance,
            n=len(full_pixels),
        )

    def measure_model(
        self, draw: Draw, *, guidance: float, noise_seeds: Sequence[int] = NOISE_SEEDS
    ) -> tuple[Row, tuple[Row, ...]]:
        """The row of a model, and the rows of each noise seed that it is the mean of."""
        rows = tuple(
            self.measure(
                draw(self.full.prompts, self.full.seeds(seed)),
                draw(self.open.prompts, self.open.seeds(seed)),
                guidance=guidance,
            )
            for seed in noise_seeds
        )
        return mean_row(rows), rows
