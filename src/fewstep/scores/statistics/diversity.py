"""What a model does where the prompt leaves a choice: spread within a prompt, and the histogram of the choices."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.errors import ConfigError


def within_prompt_diversity(features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"]) -> float:
    """Mean distance of two pictures of one prompt, then the mean over prompts.

    Only its ratio to the same figure of real pictures is comparable between feature extractors.

    Args:
        features: One row per picture.
        prompts: The prompt of each picture, as a number.

    Raises:
        ConfigError: A prompt has a single picture.
    """
    means = []
    for prompt in torch.unique(prompts):
        members = features[prompts == prompt].double()
        if len(members) < 2:
            raise ConfigError(
                f"Prompt number {int(prompt)} has one picture; diversity within a prompt needs at least two. "
                f"Draw more pictures of each prompt."
            )
        means.append(torch.nn.functional.pdist(members).mean())
    return float(torch.stack(means).mean())


def histogram(choices: Int[Tensor, "n"], *, num_choices: int) -> Float[Tensor, "c"]:
    """Share of each choice among the pictures."""
    return torch.bincount(choices, minlength=num_choices).double() / len(choices)


def total_variation(a: Float[Tensor, "c"], b: Float[Tensor, "c"]) -> float:
    """Half the summed difference of two histograms: the share of pictures that would have to change."""
    return float((a.double() - b.double()).abs().sum() / 2)
