"""LPIPS as one vector per picture, and the metric that averages its distances."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.metric import Finding, Picture, PromptItem
from fewstep.scores.networks.lpips import load_lpips, own_names
from fewstep.scores.networks.preprocessing import IMAGENET, squashed
from tests.scores.tiny_pictures import features_of, metric_of, pattern

CONVOLUTIONS = ((1, 0, 64, 3, 11), (2, 3, 192, 64, 5), (3, 6, 384, 192, 3), (4, 8, 256, 384, 3), (5, 10, 256, 256, 3))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights by the names and shapes that ``lpips.LPIPS(net="alex").state_dict()`` has."""
    generator = torch.Generator().manual_seed(0)
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for place, number, channels, inputs, window in CONVOLUTIONS:
        scale = (2 / (inputs * window**2)) ** 0.5
        kernel = torch.randn(channels, inputs, window, window, generator=generator) * scale
        state[f"net.slice{place}.{number}.weight"] = kernel
        state[f"net.slice{place}.{number}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        for name in (f"lin{place - 1}", f"lins.{place - 1}"):
            state[f"{name}.model.1.weight"] = torch.rand(
                1, channels, 1, 1, generator=torch.Generator().manual_seed(place)
            )
    return state


def by_the_formula(state: dict[str, Tensor], a: Tensor, b: Tensor) -> float:
    """The sum over layers of the mean over places of the weighted squared differences of unit vectors."""
    total = 0.0
    for place, number, *_ in CONVOLUTIONS:
        if number in (3, 6):
            a, b = (functional.max_pool2d(x, 3, 2) for x in (a, b))
        weight, bias = (state[f"net.slice{place}.{number}.{kind}"].double() for kind in ("weight", "bias"))
        stride, padding = (4, 2) if number == 0 else (1, weight.shape[2] // 2)
        a, b = (functional.relu(functional.conv2d(x, weight, bias, stride, padding)) for x in (a, b))
        units = [x / x.norm(dim=1, keepdim=True) for x in (a, b)]
        head = state[f"lin{place - 1}.model.1.weight"].double()
        total += float((head * (units[0] - units[1]).square()).sum(dim=1).mean())
    return total


def test_the_squared_distance_of_two_vectors_is_their_lpips(published: dict[str, Tensor]) -> None:
    network = load_lpips(own_names(published), source="test")
    pixels = torch.stack([squashed(pattern(90, 70, shift), 64, IMAGENET) for shift in (0, 3)])
    one, other = network(pixels).double()
    expected = by_the_formula(published, *pixels.double()[:, None])
    # float32 against float64
    assert float((one - other).square().sum()) == pytest.approx(expected, rel=1e-4)


def test_the_metric_averages_pairs_within_a_prompt_and_then_prompts(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file({name: value.clone() for name, value in published.items()}, tmp_path / "lpips_alex.safetensors")
    metric = metric_of("lpips", source=str(tmp_path), size=64)
    metric.check([])
    metric.load(torch.device("cpu"))
    pictures = []
    for number, prompt in enumerate("aabbb"):
        pattern(64, 64, number).save(tmp_path / f"{number}.png")
        pictures.append(Picture(tmp_path / f"{number}.png", PromptItem(prompt, prompt), seed=number))
    rows = features_of(metric, pictures)
    squares = torch.cdist(rows.double(), rows.double()).square()
    expected = (squares[0, 1] + (squares[2, 3] + squares[2, 4] + squares[3, 4]) / 3) / 2
    found = metric.conclude(pictures, [Finding(features=row) for row in rows])
    assert found == {"lpips": pytest.approx(float(expected), rel=1e-9)}


def test_without_a_checkpoint_it_is_told_how_to_write_one() -> None:
    with pytest.raises(
        ConfigError, match=r"lpips has no checkpoint on the hub: write it once with python -c .*LPIPS\("
    ):
        metric_of("lpips").check([])


def test_other_weights_are_refused(published: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"does not hold LPIPS on AlexNet: 1 tensors .* the first is heads\.4"):
        load_lpips(own_names({k: v for k, v in published.items() if k != "lin4.model.1.weight"}), source="test")


def test_weights_below_zero_are_refused(published: dict[str, Tensor]) -> None:
    wrong = {**published, "lin0.model.1.weight": -published["lin0.model.1.weight"]}
    with pytest.raises(CheckpointError, match="weights a channel below zero"):
        load_lpips(own_names(wrong), source="test")
