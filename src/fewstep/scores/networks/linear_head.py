"""The small heads behind a scorer: linear layers by the numbers that they had among dropouts and activations."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.source import Source


def linear_stack(
    source: Source, tensors: Mapping[str, Tensor], *, prefix: str, num_layers: int, relu: bool = False
) -> nn.Sequential:
    """Build the head from its weights, in float32 and eval mode; dropouts do nothing there and are left out.

    Args:
        source: For messages.
        tensors: Among them ``{prefix}.{number}.weight`` and ``.bias``; the order of the numbers is that of the layers.
        prefix: Name of the sequence.
        num_layers: How many linear layers the head has.
        relu: Whether a ReLU stands between them.

    Raises:
        CheckpointError: There is another number of layers, or they do not fit together.
    """
    name = re.compile(rf"{re.escape(prefix)}\.(\d+)\.weight")
    numbers = sorted(int(match.group(1)) for key in tensors if (match := name.fullmatch(key)))
    layers: list[nn.Module] = []
    width = None
    for number in numbers:
        weight, bias = tensors[f"{prefix}.{number}.weight"], tensors.get(f"{prefix}.{number}.bias")
        if weight.ndim != 2 or bias is None or len(bias) != len(weight) or width not in (None, weight.shape[1]):
            raise _not_a_head(source, prefix, num_layers)
        width = len(weight)
        layers += [nn.ReLU()] if relu and layers else []
        layers.append(_linear(weight, bias))
    if len(numbers) != num_layers:
        raise _not_a_head(source, prefix, num_layers)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer


def _not_a_head(source: Source, prefix: str, num_layers: int) -> CheckpointError:
    return CheckpointError(
        f"{source.name} does not hold the head of {source.metric}: {num_layers} linear layers named {prefix}.N.weight "
        f"and {prefix}.N.bias that fit together. It is another checkpoint; see the card of {source.metric}."
    )
