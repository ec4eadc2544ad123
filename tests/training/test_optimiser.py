import pytest
import torch
from torch import nn

from fewstep.config.run_config import OptimiserConfig
from fewstep.errors import NonFiniteError
from fewstep.training.finite import read_finite
from fewstep.training.optimiser import RoleOptimiser, lr_factor


def test_the_warm_up_does_not_start_at_zero_and_reaches_one() -> None:
    factors = [lr_factor(k, warmup=100, schedule="constant", total=2000) for k in (0, 49, 99, 100, 1999)]
    assert factors == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.5), ("linear", 0.5)])
def test_a_schedule_that_ends_stays_at_its_end(schedule: str, half: float) -> None:
    def factor(update: int) -> float:
        return lr_factor(update, warmup=0, schedule=schedule, total=100)

    assert factor(0) == 1.0 and factor(50) == pytest.approx(half)
    assert factor(100) == factor(150) == pytest.approx(0.0, abs=1e-12)


def test_clipping_reports_the_norm_before_it() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimiser = RoleOptimiser({"weight": weight}, OptimiserConfig(lr=0.1, clip=1.0), total_updates=1)
    weight.grad = torch.tensor([3.0, 4.0])
    assert optimiser.clip().item() == pytest.approx(5.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


def test_without_a_clipping_norm_gradients_stay() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimiser = RoleOptimiser({"weight": weight}, OptimiserConfig(lr=0.1, clip=None), total_updates=1)
    weight.grad = torch.tensor([3.0, 4.0])
    optimiser.clip()
    torch.testing.assert_close(weight.grad, torch.tensor([3.0, 4.0]))


def test_an_update_moves_by_the_scheduled_rate_and_drops_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimiser = RoleOptimiser(
        {"weight": weight}, OptimiserConfig(lr=0.1, warmup=10, weight_decay=0.0), total_updates=100
    )
    weight.grad = torch.ones(1)
    optimiser.update()
    assert weight.item() == pytest.approx(-0.01, rel=1e-3)  # AdamW's first step has the size of its rate
    assert weight.grad is None and optimiser.updates == 1


def test_finite_figures_are_returned_as_numbers() -> None:
    assert read_finite({"loss/dm": torch.tensor(0.5)}, role="student", step=3) == {"loss/dm": 0.5}


def test_every_figure_that_is_not_finite_is_named() -> None:
    figures = {
        "loss/ca": torch.tensor(float("inf")),
        "loss/dm": torch.tensor(1.0),
        "grad_norm/student": torch.tensor(float("nan")),
    }
    with pytest.raises(NonFiniteError) as caught:
        read_finite(figures, role="student", step=7)
    assert str(caught.value).startswith(
        "Step 7: in the update of the student, loss/ca is inf and grad_norm/student is nan;"
    )
    # a resume refuses both
    assert "start a new run from it, student.init={model: FOLDER}, with a lower learning rate" in str(caught.value)
