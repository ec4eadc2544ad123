"""The pictures that the demo shows: the same prompts and seeds drawn by the teacher and by the student.

Nothing is picked by hand: every full prompt at seed 0, and every prompt that leaves the colour open at seeds 0 to 6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from fewstep.demo.protocol import BATCH
from fewstep.embedded.prompts import NUM_COLOURS, full_prompts, open_colour_prompts
from fewstep.evaluation.report_pictures import Sheet
from fewstep.sampling.generate import TextToImage

Draw = Callable[[Sequence[str], Sequence[int]], UInt8[Tensor, "n 3 h w"]]
"""Draws one picture per prompt and seed, as bytes; a picture depends on its own prompt and seed only."""


def draw_with(model: TextToImage, *, sigmas: Float[Tensor, "k"], guidance_scale: float) -> Draw:
    """Pictures of ``model`` on the grid ``sigmas`` (without the final 0)."""

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        latents = model.latents(prompts, seeds, sigmas=sigmas, guidance_scale=guidance_scale, batch=BATCH)
        return model.pixels(latents, batch=BATCH)

    return draw


@dataclass(frozen=True)
class Panel:
    """One model's pictures.

    Attributes:
        row: Name of its row of scores.
        steps, calls: Per picture; a call is one of the network.
        full: Rows are digits, columns are colours, seed 0.
        open: Rows are digits, columns are seeds; the prompt leaves the colour open.
    """

    row: str
    steps: int
    calls: int
    full: Sheet
    open: Sheet


def draw_panel(draw: Draw, *, row: str, steps: int, calls: int) -> Panel:
    """Draw the 140 pictures of one model."""
    full, free = full_prompts(), [prompt for prompt in open_colour_prompts() for _ in range(NUM_COLOURS)]
    seeds = list(range(NUM_COLOURS)) * len(open_colour_prompts())
    return Panel(row, steps, calls, _sheet(draw, full, [0] * len(full)), _sheet(draw, free, seeds))


def _sheet(draw: Draw, prompts: Sequence[str], seeds: Sequence[int]) -> Sheet:
    return Sheet(draw(prompts, seeds), tuple(prompts), tuple(seeds), NUM_COLOURS)
