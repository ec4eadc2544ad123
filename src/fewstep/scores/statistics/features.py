"""What every feature metric is given: two sets of feature vectors, one row per picture."""

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.errors import ConfigError

Features = Float[Tensor, "n d"]


def checked_pair(real: Tensor, generated: Tensor, *, at_least: int) -> tuple[Tensor, Tensor]:
    """Both sets in float64, after a check that they can be compared.

    Raises:
        ConfigError: A set is too small, not finite, or the two have different widths.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) < at_least:
            raise ConfigError(
                f"The {name} features have shape {tuple(features.shape)}; this metric needs one row per picture and at "
                f"least {at_least} pictures. Draw more pictures."
            )
        if not torch.isfinite(features).all():
            raise ConfigError(
                f"The {name} features hold values that are not finite; the pictures or the model are broken."
            )
    if real.shape[1] != generated.shape[1]:
        raise ConfigError(
            f"The real features have {real.shape[1]} columns and the generated ones {generated.shape[1]}; "
            f"compute both with the same feature extractor."
        )
    return real.double(), generated.double()
