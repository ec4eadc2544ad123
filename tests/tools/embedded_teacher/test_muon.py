"""Muon: what it does to a matrix, and which parameters it is for."""

import pytest
import torch
from torch import nn

from tools.embedded_teacher.muon import Muon, orthogonalise, split_parameters


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8)])
def test_all_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    # the quintic does not converge to one; it ends within these bounds for all but tiny singular values
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3


def test_singular_directions_are_kept() -> None:
    left, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    right, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))
    matrix = left @ torch.diag(torch.linspace(0.2, 1, 8)) @ right
    turned = left.T @ orthogonalise(matrix[None])[0] @ right.T
    assert float((turned - torch.diag(turned.diagonal())).abs().max()) < 1e-4
    assert float(turned.diagonal().min()) > 0.5


def test_first_step_moves_every_direction_by_the_learning_rate() -> None:
    matrix = nn.Parameter(torch.zeros(8, 8))
    optimiser = Muon([matrix], lr=0.1, weight_decay=0.0)
    matrix.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
    optimiser.step()
    moved = torch.linalg.svdvals(matrix.detach())
    assert float(moved.min()) > 0.03 and float(moved.max()) < 0.13
    assert float((matrix.detach() * matrix.grad).sum()) < 0


def test_matrices_of_one_shape_do_not_mix() -> None:
    gradients = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(4))
    together, alone = [nn.Parameter(torch.zeros(8, 8)) for _ in range(2)], nn.Parameter(torch.zeros(8, 8))
    for matrix, gradient in zip(together, gradients, strict=True):
        matrix.grad = gradient
    alone.grad = gradients[1].clone()
    Muon(together, lr=0.1, weight_decay=0.0).step()
    Muon([alone], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(together[1], alone)


def test_weights_decay_by_the_stated_share() -> None:
    matrix = nn.Parameter(torch.ones(8, 8))
    matrix.grad = torch.zeros(8, 8)
    Muon([matrix], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), torch.full((8, 8), 0.95))


def test_only_large_matrices_of_linear_layers_outside_norms_are_for_muon() -> None:
    module = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 96), nn.Linear(96, 16), nn.LayerNorm(16))
    module.add_module("norm1", nn.Linear(96, 576))
    matrices, rest = split_parameters(module)
    assert [tuple(matrix.shape) for matrix in matrices] == [(96, 64)]
    assert len(matrices) + len(rest) == len(list(module.parameters()))
