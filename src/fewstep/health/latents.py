"""What pictures of the student show beside the teacher's of the same prompts and seeds: figures of their latents."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# of each channel's values, beyond which the teacher has 1 % of its own
_TAIL = 0.005


@dataclass(frozen=True)
class LatentStatistics:
    """The teacher's pictures, by channel of their latents.

    Attributes:
        mean: Over pictures and places.
        std: The same.
        low: Below it are half a percent of the values.
        high: Above it are half a percent.
        spread: RMS over prompts and places of the standard deviation over seeds.
    """

    mean: Float[Tensor, "c"]
    std: Float[Tensor, "c"]
    low: Float[Tensor, "c"]
    high: Float[Tensor, "c"]
    spread: Float[Tensor, ""]

    @classmethod
    def of(cls, x0: Float[Tensor, "b *latent"], *, seeds: int) -> "LatentStatistics":
        """Statistics of pictures that stand prompt by prompt, ``seeds`` of each."""
        values = _by_channel(x0)
        ordered = values.sort(dim=1).values
        tail = int(_TAIL * ordered.shape[1])
        return cls(
            mean=values.mean(1),
            std=values.std(1, correction=0),
            low=ordered[:, tail],
            high=ordered[:, -1 - tail],
            spread=_spread(x0, seeds),
        )


def latent_figures(
    x0: Float[Tensor, "b *latent"], teacher: LatentStatistics, *, seeds: int
) -> dict[str, Float[Tensor, ""]]:
    """The student's pictures against the teacher's.

        cast       = max over channels of |mean - mean_teacher| / std_teacher               [eq:health-latents]
        contrast   = mean over channels of std / std_teacher
        saturation = share of values beyond the teacher's low and high; of its own it is 1 %
        diversity  = spread over seeds / the teacher's

    Args:
        x0: Latents prompt by prompt, (b, c, *space) or packed (b, tokens, c).
        teacher: Of the same prompts and seeds.
        seeds: Pictures of each prompt.
    """
    values = _by_channel(x0)
    tiny = torch.finfo(torch.float32).tiny
    std = teacher.std.clamp_min(tiny)
    beyond = (values < teacher.low[:, None]) | (values > teacher.high[:, None])
    return {
        "cast": ((values.mean(1) - teacher.mean).abs() / std).amax(),
        "contrast": (values.std(1, correction=0) / std).mean(),
        "saturation": beyond.float().mean(),
        "diversity": _spread(x0, seeds) / teacher.spread.clamp_min(tiny),
    }


def _by_channel(x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "c n"]:
    return x0.float().movedim(1 if x0.ndim > 3 else -1, 0).flatten(1)


def _spread(x0: Float[Tensor, "b *latent"], seeds: int) -> Float[Tensor, ""]:
    of_prompts = x0.float().reshape(-1, seeds, *x0.shape[1:])
    return torch.sqrt(of_prompts.var(1, correction=1).mean())
