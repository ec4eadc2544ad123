"""The Inception network of FID: TensorFlow's of 2015-12-05, which differs from the one in torchvision.

It averages without the zeros that a border adds, and its last block takes a maximum where the paper has a mean. The
parameters have the names of the published PyTorch checkpoints, so that those load as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import CheckpointError

INPUT_SIZE = 299
_NUM_FEATURES = 2048
_NUM_CLASSES = 1008


class Pool(Enum):
    """What a branch does before its convolutions."""

    NONE = "none"
    MEAN = "mean"
    MAX = "max"
    HALVE = "halve"


@dataclass(frozen=True)
class _Layer:
    """One convolution with its batch normalisation; padded to keep the size unless it halves it."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


@dataclass(frozen=True)
class _Branch:
    """A chain of layers after a pooling, whose result may fork into several last layers."""

    chain: tuple[_Layer, ...] = ()
    forks: tuple[_Layer, ...] = ()
    pool: Pool = Pool.NONE


class _Convolution(nn.Module):
    """_Convolution without bias, batch normalisation, rectifier."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, stride: int = 1, pad: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side; their channels are joined in order."""

    def __init__(self, inputs: int, branches: Sequence[_Branch]):
        super().__init__()
        self.branches = tuple(branches)
        self.channels = 0
        for branch in branches:
            width = inputs
            for layer in branch.chain:
                self._add(width, layer)
                width = layer.channels
            for layer in branch.forks:
                self._add(width, layer)
            self.channels += sum(layer.channels for layer in branch.forks) or width

    def _add(self, inputs: int, layer: _Layer) -> None:
        halves = layer.stride > 1
        module = _Convolution(inputs, layer.channels, layer.kernel, stride=layer.stride, pad=not halves)
        self.add_module(layer.name, module)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(branch, x) for branch in self.branches], dim=1)

    def _run(self, branch: _Branch, x: Tensor) -> Tensor:
        x = pooled(x, branch.pool)
        for layer in branch.chain:
            x = self.get_submodule(layer.name)(x)
        if branch.forks:
            x = torch.cat([self.get_submodule(layer.name)(x) for layer in branch.forks], dim=1)
        return x


def pooled(x: Tensor, pool: Pool) -> Tensor:
    """Pool in windows of 3x3."""
    match pool:
        case Pool.NONE:
            return x
        case Pool.MEAN:
            return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        case Pool.MAX:
            return functional.max_pool2d(x, 3, stride=1, padding=1)
        case Pool.HALVE:
            return functional.max_pool2d(x, 3, stride=2)


def _block_5(pool_channels: int) -> tuple[_Branch, ...]:
    return (
        _Branch((_Layer("branch1x1", 64),)),
        _Branch((_Layer("branch5x5_1", 48), _Layer("branch5x5_2", 64, (5, 5)))),
        _Branch(
            (_Layer("branch3x3dbl_1", 64), _Layer("branch3x3dbl_2", 96, (3, 3)), _Layer("branch3x3dbl_3", 96, (3, 3)))
        ),
        _Branch((_Layer("branch_pool", pool_channels),), pool=Pool.MEAN),
    )


def _block_6(width: int) -> tuple[_Branch, ...]:
    flat, tall = (1, 7), (7, 1)
    double = (width, width, width, 192)
    return (
        _Branch((_Layer("branch1x1", 192),)),
        _Branch((_Layer("branch7x7_1", width), _Layer("branch7x7_2", width, flat), _Layer("branch7x7_3", 192, tall))),
        _Branch(
            (
                _Layer("branch7x7dbl_1", width),
                *(_Layer(f"branch7x7dbl_{i + 2}", double[i], tall if i % 2 == 0 else flat) for i in range(4)),
            )
        ),
        _Branch((_Layer("branch_pool", 192),), pool=Pool.MEAN),
    )


def _block_7(pool: Pool) -> tuple[_Branch, ...]:
    flat, tall = (1, 3), (3, 1)
    return (
        _Branch((_Layer("branch1x1", 320),)),
        _Branch(
            (_Layer("branch3x3_1", 384),),
            forks=(_Layer("branch3x3_2a", 384, flat), _Layer("branch3x3_2b", 384, tall)),
        ),
        _Branch(
            (_Layer("branch3x3dbl_1", 448), _Layer("branch3x3dbl_2", 384, (3, 3))),
            forks=(_Layer("branch3x3dbl_3a", 384, flat), _Layer("branch3x3dbl_3b", 384, tall)),
        ),
        _Branch((_Layer("branch_pool", 192),), pool=pool),
    )


_REDUCTION_6 = (
    _Branch((_Layer("branch3x3", 384, (3, 3), 2),)),
    _Branch(
        (_Layer("branch3x3dbl_1", 64), _Layer("branch3x3dbl_2", 96, (3, 3)), _Layer("branch3x3dbl_3", 96, (3, 3), 2))
    ),
    _Branch(pool=Pool.HALVE),
)
_REDUCTION_7 = (
    _Branch((_Layer("branch3x3_1", 192), _Layer("branch3x3_2", 320, (3, 3), 2))),
    _Branch(
        (
            _Layer("branch7x7x3_1", 192),
            _Layer("branch7x7x3_2", 192, (1, 7)),
            _Layer("branch7x7x3_3", 192, (7, 1)),
            _Layer("branch7x7x3_4", 192, (3, 3), 2),
        )
    ),
    _Branch(pool=Pool.HALVE),
)
_BLOCKS: dict[str, tuple[_Branch, ...]] = {
    "Mixed_5b": _block_5(32),
    "Mixed_5c": _block_5(64),
    "Mixed_5d": _block_5(64),
    "Mixed_6a": _REDUCTION_6,
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
    "Mixed_7a": _REDUCTION_7,
    "Mixed_7b": _block_7(Pool.MEAN),
    "Mixed_7c": _block_7(Pool.MAX),
}


class Inception(nn.Module):
    """Pictures of 299x299 in [-1, 1] to the 2048 features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, (3, 3), stride=2, pad=False)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Convolution(80, 192, (3, 3), pad=False)
        channels = 192
        for name, branches in _BLOCKS.items():
            block = _Block(channels, branches)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(_NUM_FEATURES, _NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(pooled(x, Pool.HALVE)))
        x = pooled(x, Pool.HALVE)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


# the wrapper of pytorch-fid numbers the parts; its own checkpoint and torch-fidelity's name them as here
_NUMBERED = {
    **{f"blocks.0.{i}": name for i, name in enumerate(("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"))},
    **{f"blocks.1.{i}": name for i, name in enumerate(("Conv2d_3b_1x1", "Conv2d_4a_3x3"))},
    **{f"blocks.2.{i}": name for i, name in enumerate(list(_BLOCKS)[:8])},
    **{f"blocks.3.{i}": name for i, name in enumerate(list(_BLOCKS)[8:])},
}


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published checkpoint's tensors to this network's names.

    Accepts the names of pytorch-fid's and torch-fidelity's files, and those of a saved pytorch-fid module
    (``blocks.0.0.conv.weight``), which has no classifier.
    """
    renamed = {}
    for name, value in tensors.items():
        first = ".".join(name.split(".")[:3])
        renamed[_NUMBERED[first] + name.removeprefix(first) if first in _NUMBERED else name] = value
    return renamed


def load_inception(tensors: Mapping[str, Tensor], *, source: str, with_classes: bool = False) -> Inception:
    """The network with a checkpoint's weights, ready to read pictures.

    Args:
        with_classes: Whether the classifier's weights must be there too.

    Raises:
        CheckpointError: The tensors are not those of this network.
    """
    with torch.device("meta"):
        network = Inception()
    expected = network.state_dict()
    found = own_names(tensors)
    # neither the counters of training nor the classifier's bias take part in anything, its weights in no feature
    unread = ("fc.bias",) if with_classes else ("fc.bias", "fc.weight")
    ignored = {name for name in expected if name in unread or name.endswith("num_batches_tracked")}
    wrong = sorted(set(expected) - ignored - set(found)) + sorted(set(found) - set(expected))
    wrong += [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source} does not hold the Inception network of FID: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, the first is {wrong[0]}. Give a file with the weights of 2015-12-05."
        )
    unused = {name: torch.zeros(expected[name].shape, dtype=expected[name].dtype) for name in ignored}
    network.load_state_dict(unused | found, assign=True)
    return network.float().eval().requires_grad_(False)


def resize_clean(image: Image.Image) -> Tensor:
    """Bicubic with antialiasing, each channel in floating point, cut off but not rounded again: as clean-fid does."""
    channels = [
        np.asarray(Image.fromarray(plane).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))
        for plane in np.moveaxis(np.asarray(image, dtype=np.float32), 2, 0)
    ]
    # bicubic weights overshoot at edges
    return (torch.from_numpy(np.stack(channels)).clamp(0, 255) - 128) / 128


def resize_torch(image: Image.Image) -> Tensor:
    """Bilinear without antialiasing, pixel centres aligned: as pytorch-fid does."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255
    resized = functional.interpolate(pixels[None], (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
    return 2 * resized[0] - 1


def resize_tf1(image: Image.Image) -> Tensor:
    """Bilinear without antialiasing, pixel corners aligned: as TensorFlow 1 and torch-fidelity do."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)
    rows, columns = (_corner_weights(size) for size in pixels.shape[1:])
    return (rows @ pixels @ columns.mT - 128) / 128


def _corner_weights(size: int) -> Tensor:
    """The 299 rows of weights that interpolate ``size`` values linearly at multiples of size / 299."""
    position = torch.arange(INPUT_SIZE) * (size / INPUT_SIZE)
    lower = position.long()
    share = position - lower
    weights = torch.zeros(INPUT_SIZE, size)
    row = torch.arange(INPUT_SIZE)
    weights[row, lower] += 1 - share
    # at the edge both neighbours are the last pixel
    weights[row, (lower + 1).clamp(max=size - 1)] += share
    return weights


RESIZES: dict[str, Callable[[Image.Image], Tensor]] = {
    "inception": resize_clean,
    "inception-torch": resize_torch,
    "inception-tf1": resize_tf1,
}
"""The resize decides whose figures it compares with; each is an extractor of its own."""
