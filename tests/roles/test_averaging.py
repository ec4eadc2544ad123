import pytest
import torch
from torch import nn

from fewstep.roles.averaging import ExponentialMovingAverage, align, ema_decay, swapped
from tests.golden import functions, values


@pytest.mark.parametrize("limit", ["0.9", "0.999", "0.9999"])
def test_the_published_decays_are_reproduced(limit: str) -> None:
    table = values()["ema.decay_table"][limit]
    for update, decay in table.items():
        if int(update) >= 1:
            assert ema_decay(int(update), float(limit)) == pytest.approx(decay)


def test_updates_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="update is 0; the first update is 1"):
        ema_decay(0, 0.999)


def test_the_published_averages_are_reproduced() -> None:
    stored = {name: torch.from_numpy(value) for name, value in functions().items()}
    names = {"p0": "0", "p1": "1"}
    average = ExponentialMovingAverage({n: stored[f"ema.{n}_init"] for n in names}, decay=0.999)
    for update in range(1, 6):
        average.update({n: stored[f"ema.step{update}.param{i}"] for n, i in names.items()}, update=update)
        for n, i in names.items():
            torch.testing.assert_close(average.shadow[n], stored[f"ema.step{update}.ema{i}"], rtol=1e-5, atol=1e-6)


def test_the_published_alignment_is_reproduced() -> None:
    stored = {name: torch.from_numpy(value) for name, value in functions().items()}
    fake, student = nn.Parameter(stored["merge.ft_before"].clone()), nn.Parameter(stored["merge.student"].clone())
    align({"w": fake}, {"w": student}, decay=0.999)
    torch.testing.assert_close(fake.detach(), stored["merge.ft_after_0.999"])
    align({"w": fake}, {"w": student}, decay=0.9)
    torch.testing.assert_close(fake.detach(), stored["merge.ft_after_then_0.9"])
    assert torch.equal(student.detach(), stored["merge.student"])


def test_the_average_of_a_bfloat16_network_is_float32_and_moves() -> None:
    average = ExponentialMovingAverage({"w": torch.ones(1, dtype=torch.bfloat16)}, decay=0.999)
    for update in range(20_000, 21_000):
        average.update({"w": torch.full((1,), 1.0078125, dtype=torch.bfloat16)}, update=update)
    # 1000 steps of 0.1 % close 63 % of the distance; a bfloat16 average would not have moved
    assert average.shadow["w"].item() == pytest.approx(1 + 0.632 * 0.0078125, abs=1e-4)


def test_swapped_weights_come_back_even_after_an_error() -> None:
    weight = nn.Parameter(torch.ones(2))
    seen = []

    def fail_inside() -> None:
        with swapped({"w": weight}, {"w": torch.zeros(2)}):
            seen.append(weight.detach().clone())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert seen[0].eq(0).all()
    assert weight.eq(1).all()
