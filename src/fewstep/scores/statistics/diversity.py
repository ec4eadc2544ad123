"""What a model does where the prompt leaves a choice: how far its pictures differ, and how often it chooses what."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.errors import ConfigError


def within_prompt_diversity(
    features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"], *, squared: bool = False
) -> float:
    """Mean distance of two pictures of one prompt, then the mean over prompts.

    Only its ratio to the same figure of real pictures is comparable between feature extractors.

    Args:
        features: One row per picture.
        prompts: The prompt of each picture, as a number.
        squared: Whether the squares of the distances are averaged.

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
        distances = torch.nn.functional.pdist(members)
        means.append((distances.square() if squared else distances).mean())
    return float(torch.stack(means).mean())


def histogram(choices: Int[Tensor, "n"], *, num_choices: int) -> Float[Tensor, "c"]:
    """Share of each choice among the pictures."""
    return torch.bincount(choices, minlength=num_choices).double() / len(choices)


def total_variation(a: Float[Tensor, "c"], b: Float[Tensor, "c"]) -> float:
    """Half the summed difference of two histograms: the share of pictures that would have to change."""
    return float((a.double() - b.double()).abs().sum() / 2)


def cosine_diversity(features: Float[Tensor, "n d"], prompts: Int[Tensor, "n"]) -> float:
    """Mean over prompts of the mean cosine distance of two pictures of one prompt.

    Every prompt has at least two pictures.

    Raises:
        ConfigError: A picture's features are all zero.
    """
    norms = features.double().norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise ConfigError("diversity compares directions of features, and a picture's features are all zero.")
    directions = features.double() / norms
    means = []
    for prompt in torch.unique(prompts):
        members = directions[prompts == prompt]
        upper = torch.triu_indices(len(members), len(members), offset=1)
        means.append(1 - (members @ members.mT)[upper[0], upper[1]].mean())
    return float(torch.stack(means).mean())


def vendi_score(features: Tensor) -> float:
    """The exponential of the entropy of the similarity matrix's spectrum.

    Raises:
        ConfigError: A picture has no features but zeros, whose direction is not defined.
    """
    rows = features.double()
    norms = rows.norm(dim=1)
    if not bool((norms > 0).all()):
        raise ConfigError("vendi compares directions of features, and a picture's features are all zero.")
    rows = rows / norms[:, None]
    # the spectrum of n x n similarities is that of the d x d second moments, whichever is smaller
    gram = rows @ rows.mT if len(rows) <= rows.shape[1] else rows.mT @ rows
    spectrum = torch.linalg.eigvalsh(gram / len(rows)).clamp(min=0)
    return float(torch.special.entr(spectrum).sum().exp())


def inception_score(logits: Float[Tensor, "n c"], *, splits: int) -> float:
    """The mean over contiguous splits of exp(mean KL(p(class | picture) | p(class))).

    Args:
        logits: A row per picture, in an order that does not follow the classes.
        splits: Parts whose scores are averaged; p(class) is each part's own.
    """
    shares = logits.double().log_softmax(dim=1)
    scores = []
    for split in range(splits):
        part = shares[split * len(shares) // splits : (split + 1) * len(shares) // splits]
        common = part.logsumexp(dim=0) - math.log(len(part))
        scores.append((part.exp() * (part - common)).sum(dim=1).mean().exp())
    return float(torch.stack(scores).mean())
