"""The pictures that the demo shows: the same prompts and seeds drawn by the teacher and by the student.

Nothing is picked by hand: every full prompt at seed 0, and every prompt that leaves the colour open at seeds 0 to 6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fewstep.demo.protocol import BATCH
from fewstep.embedded.prompts import NUM_COLOURS, full_prompts, open_colour_prompts
from fewstep.sampling.generate import TextToImage

COLUMNS = NUM_COLOURS
Pixels = UInt8[Tensor, "n 3 h w"]
Draw = Callable[[Sequence[str], Sequence[int]], Pixels]
"""Draws one picture per prompt and seed, as bytes; a picture depends on its own prompt and seed only."""


def draw_with(model: TextToImage, *, sigmas: Float[Tensor, "k"], guidance_scale: float) -> Draw:
    """Pictures of ``model`` on the grid ``sigmas`` (without the final 0)."""

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        latents = model.latents(prompts, seeds, sigmas=sigmas, guidance_scale=guidance_scale, batch=BATCH)
        return model.pixels(latents, batch=BATCH)

    return draw


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows of seven, with what was asked for each.

    Attributes:
        pixels: Bytes, one picture per prompt.
        prompts: One per picture.
        seeds: One per picture.
    """

    pixels: Pixels
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def rows(self, first: int, last: int) -> "Sheet":
        """The rows from ``first`` up to, and without, ``last``."""
        part = slice(first * COLUMNS, last * COLUMNS)
        return Sheet(self.pixels[part], self.prompts[part], self.seeds[part])

    def mosaic(self) -> UInt8[Tensor, "h w 3"]:
        """All pictures as one, without gaps."""
        rows = [torch.cat(list(row), dim=2) for row in torch.split(self.pixels, COLUMNS)]
        return torch.cat(rows, dim=1).permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class Panel:
    """One model's pictures.

    Attributes:
        row: Name of its row of scores.
        title: What drew them, in a few words.
        calls: Network calls per picture.
        full: Rows are digits, columns are colours, seed 0.
        open: Rows are digits, columns are seeds; the prompt leaves the colour open.
    """

    row: str
    title: str
    calls: int
    full: Sheet
    open: Sheet


def draw_panel(draw: Draw, *, row: str, title: str, calls: int) -> Panel:
    """Draw the 140 pictures of one model."""
    full, free = full_prompts(), [prompt for prompt in open_colour_prompts() for _ in range(COLUMNS)]
    seeds = list(range(COLUMNS)) * len(open_colour_prompts())
    return Panel(row, title, calls, _sheet(draw, full, [0] * len(full)), _sheet(draw, free, seeds))


def _sheet(draw: Draw, prompts: Sequence[str], seeds: Sequence[int]) -> Sheet:
    return Sheet(draw(prompts, seeds), tuple(prompts), tuple(seeds))
