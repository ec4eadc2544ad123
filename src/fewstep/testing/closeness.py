"""What float32 rounding allows: comparisons that hold on every processor.

A matrix product, a convolution or a mean adds the same terms in an order that depends on the instruction set, on the
number of threads, on where the operands lie in memory and on whether a weight is trained (torch folds a batch of
products into one for such a weight). So two networks of equal weights need not answer with equal bits, and neither do
two machines. What is promised bit by bit (weights that were stored and loaded, one network asked twice in one process)
is compared with ``torch.equal``; the rest here.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

# the largest relative error of one float32 operation: half the step from 1 to the next number
UNIT = 2.0**-24


def _rounding(terms: int) -> float:
    """The largest difference, relative to the size of the result, of two orders of ``terms`` float32 additions.

    One addition is off by up to ``UNIT``, with a standard deviation of 0.6 of it; independent errors add in squares,
    and both orders have them: 0.8 sqrt(terms) UNIT. The largest of a million entries is five deviations out, and
    normalisations on the way enlarge it twice.
    """
    return 8 * math.sqrt(terms) * UNIT


def additions(network: nn.Module) -> int:
    """Additions on the longest way through a network: each of its matrices adds as many terms as its rows have."""
    return sum(weight[0].numel() for weight in network.parameters() if weight.ndim > 1)


def assert_rounded_alike(actual: Tensor, expected: Tensor, *, terms: int) -> None:
    """Both are the same sums of about ``terms`` terms, one after the other, up to the order of their additions."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=_rounding(terms) * largest)


def assert_same_pictures(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Bytes of the same pictures: a number on the border of two bytes may round to either."""
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names with the same numbers, bit by bit: what storing and loading promise."""
    assert actual.keys() == expected.keys()
    assert [name for name, value in actual.items() if not torch.equal(value, expected[name])] == []
