"""LPIPS on AlexNet: a picture as one vector, so that the squared distance of two vectors is their LPIPS."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.reading import StoredNetwork, read_tensors
from fewstep.scores.networks.network import Network

# (channels in, channels out, window, stride, padding) by the layer's number in AlexNet; a pooling before the second and
# the third
_LAYERS = {
    0: (3, 64, 11, 4, 2),
    3: (64, 192, 5, 1, 2),
    6: (192, 384, 3, 1, 1),
    8: (384, 256, 3, 1, 1),
    10: (256, 256, 3, 1, 1),
}
_POOLED = (3, 6)
_EPSILON = 1e-10


class Lpips(Network):
    """The trunk of AlexNet with the weights of LPIPS 0.1 over its channels."""

    weights = ("lpips_alex.safetensors", "lpips_alex.pth")
    files = ()

    def read(self) -> StoredNetwork:
        return StoredNetwork(
            {"model_type": "lpips-alex-0.1"}, own_names(read_tensors(self.checkpoint, weights=self.weights))
        )

    def build(self) -> nn.Module:
        return load_lpips(self.read().tensors, source=self.checkpoint.name)


class LpipsNetwork(nn.Module):
    """Five convolutions, and after each a weight for every channel; no weight is below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {str(number): nn.Conv2d(a, b, k, stride=s, padding=p) for number, (a, b, k, s, p) in _LAYERS.items()}
        )
        self.heads = nn.ParameterList([nn.Parameter(torch.ones(channels)) for _, channels, *_ in _LAYERS.values()])

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """A picture's vector, from pixels normalised with ImageNet's mean and deviation.

        LPIPS(a, b) = sum_l mean_hw sum_c w_lc (a_lc / |a_l| - b_lc / |b_l|)^2
        """
        x, parts = pixels, []
        for number, head in zip(_LAYERS, self.heads, strict=True):
            if number in _POOLED:
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(self.convolutions[str(number)](x))
            unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)
            places = x.shape[2] * x.shape[3]
            parts.append((unit * (head / places).sqrt()[:, None, None]).flatten(1))
        return torch.cat(parts, dim=1)


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename what ``lpips.LPIPS(net="alex")`` holds; the heads stand there twice."""
    heads = {f"lin{place}.model.1.weight": f"heads.{place}" for place in range(len(_LAYERS))}
    trunk = {
        f"net.slice{place}.{number}.{kind}": f"convolutions.{number}.{kind}"
        for place, number in enumerate(_LAYERS, start=1)
        for kind in ("weight", "bias")
    }
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in heads:
            found[heads[name]] = value.flatten()
        elif not name.startswith(("lins.", "scaling_layer.")):
            found[trunk.get(name, name)] = value
    return found


def load_lpips(tensors: Mapping[str, Tensor], *, source: str) -> LpipsNetwork:
    """The network with a checkpoint's weights.

    Raises:
        CheckpointError: They are those of another network, or a channel counts negatively.
    """
    with torch.device("meta"):
        network = LpipsNetwork()
    expected: dict[str, Any] = network.state_dict()
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source} does not hold LPIPS on AlexNet: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first is {wrong[0]}. Give the state of lpips.LPIPS(net='alex')."
        )
    if any(bool((value < 0).any()) for name, value in tensors.items() if name.startswith("heads.")):
        raise CheckpointError(f"{source} weights a channel below zero, which LPIPS never does; get the file again.")
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)
