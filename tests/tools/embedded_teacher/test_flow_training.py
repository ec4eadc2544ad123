"""Training of the demo's teacher: what it draws, what it regresses, and that an interruption changes nothing."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewstep.embedded.digits.prompts import all_prompts, prompt_for
from fewstep.errors import NonFiniteError
from tools.embedded_teacher import flow_training
from tools.embedded_teacher.flow_training import FlowSettings, LatentPool
from tools.embedded_teacher.teacher import PromptEmbeds, TeacherNetworks, build_tokenizer, tokenize


@pytest.fixture(scope="module")
def pool() -> LatentPool:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(64, 4, 8, 8, generator=generator)
    return LatentPool(x0, torch.arange(64) % 10, torch.arange(64) % 7)


def drawn_prompts(num: int = 20_000) -> list[str]:
    digits, colours = torch.full((num,), 3), torch.full((num,), 1)
    index = flow_training.draw_prompt_index(digits, colours, torch.Generator().manual_seed(0))
    prompts = all_prompts()
    return [prompts[position] for position in index.tolist()]


@pytest.mark.parametrize(
    ("prompt", "share"),
    [
        (prompt_for(3, 1), 0.9 * 0.75),
        (prompt_for(3, None), 0.9 * 0.10),
        (prompt_for(None, 1), 0.9 * 0.08),
        (prompt_for(None, None), 0.9 * 0.07),
        ("", 0.10),
    ],
)
def test_prompts_are_drawn_in_the_stated_mix(prompt: str, share: float) -> None:
    # four standard deviations of a share of 20,000 draws are below 0.0142
    assert drawn_prompts().count(prompt) / 20_000 == pytest.approx(share, abs=0.0142)


def test_sigma_is_symmetric_about_one_half() -> None:
    sigma = flow_training.draw_sigma(20_000, torch.Generator().manual_seed(0))
    # the standard deviation of a mean of 20,000 is below 0.002, and stratification makes it smaller
    assert float(sigma.mean()) == pytest.approx(0.5, abs=0.005)


def test_sigma_mixes_logit_normal_and_uniform() -> None:
    sigma = flow_training.draw_sigma(20_000, torch.Generator().manual_seed(0))
    # P(sigma < 0.1) is P(normal < logit 0.1) = 0.0140 under the logit-normal and 0.1 under the uniform law
    assert float((sigma < 0.1).float().mean()) == pytest.approx(0.7 * 0.0140 + 0.3 * 0.1, abs=0.004)


class PerfectNetworks(nn.Module):
    """Knows the only picture of a pool, and so the exact velocity (x_sigma - x0) / sigma."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0

    def encode(self, ids: Tensor) -> PromptEmbeds:
        return PromptEmbeds(torch.zeros(len(ids), 7, 128), torch.zeros(len(ids), 128))

    def velocity(self, x_sigma: Tensor, sigma: Tensor, cond: PromptEmbeds) -> Tensor:
        return (x_sigma - self.x0) / sigma[:, None, None, None]


def test_loss_vanishes_for_the_exact_velocity(pool: LatentPool) -> None:
    single = LatentPool(pool.x0[:1], pool.digits[:1], pool.colours[:1])
    ids = tokenize(build_tokenizer(), all_prompts())
    networks = PerfectNetworks(pool.x0[:1])
    loss = flow_training.flow_matching_loss(
        networks,  # type: ignore[arg-type]  # an exact oracle in place of the trained networks
        single,
        ids,
        batch=32,
        generator=torch.Generator().manual_seed(0),
    )
    # float32 rounding divided by the smallest sigma of the batch
    assert float(loss) < 1e-6


def test_learning_rate_starts_above_zero_and_ends_near_it() -> None:
    settings = FlowSettings(num_steps=1000, warmup_steps=10)
    assert flow_training.share_of_rate(0, settings) == pytest.approx(0.1)
    assert flow_training.share_of_rate(999, settings) < 1e-5


def train(pool: LatentPool, folder: Path, settings: FlowSettings) -> TeacherNetworks:
    return flow_training.train_flow(
        pool, settings, seed=3, state_file=folder / "flow.state", report=lambda step, values: None
    )


SHORT = FlowSettings(num_steps=4, batch=4, warmup_steps=1, save_every=2, compiled=False)


class InterruptedTrainingError(Exception):
    """Raised where a test cuts a training off."""


def test_interrupted_training_ends_as_the_uninterrupted_one(
    pool: LatentPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_folder, cut_folder = tmp_path / "whole", tmp_path / "cut"
    whole_folder.mkdir()
    cut_folder.mkdir()
    whole = train(pool, whole_folder, SHORT)

    def interrupt(step: int, settings: FlowSettings) -> float:
        if step == 3:
            raise InterruptedTrainingError
        return rate(step, settings)

    rate = flow_training.share_of_rate
    monkeypatch.setattr(flow_training, "share_of_rate", interrupt)
    with pytest.raises(InterruptedTrainingError):
        train(pool, cut_folder, SHORT)
    monkeypatch.undo()
    resumed = train(pool, cut_folder, SHORT)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_training_lowers_the_loss(pool: LatentPool, tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, num_steps=40, batch=16, save_every=100, lr=3e-3, ema_decay=0.5)
    single = LatentPool(pool.x0[:1], pool.digits[:1], pool.colours[:1])
    before = flow_training.fresh_state(settings, 3).networks
    after = train(single, tmp_path, settings)
    assert fixed_loss(after, single) < 0.8 * fixed_loss(before, single)


@torch.no_grad()
def fixed_loss(networks: TeacherNetworks, pool: LatentPool) -> float:
    """The loss on one fixed batch."""
    ids, generator = tokenize(build_tokenizer(), all_prompts()), torch.Generator().manual_seed(9)
    return float(flow_training.flow_matching_loss(networks, pool, ids, batch=128, generator=generator))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_ends_near_the_plain_one(pool: LatentPool, tmp_path: Path) -> None:
    plain_folder, compiled_folder = tmp_path / "plain", tmp_path / "compiled"
    plain_folder.mkdir()
    compiled_folder.mkdir()
    plain = train(pool, plain_folder, SHORT)
    compiled = train(pool, compiled_folder, dataclasses.replace(SHORT, compiled=True))
    # Adam turns a rounding difference of a gradient near zero into one of at most the learning rate per step
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=0, atol=1e-2)


def test_a_loss_that_is_no_number_stops_the_training_before_a_weight_moves(pool: LatentPool, tmp_path: Path) -> None:
    broken = LatentPool(torch.full_like(pool.x0, float("nan")), pool.digits, pool.colours)
    with pytest.raises(NonFiniteError, match=r"^Step 0: the loss of the teacher is nan; no weight moved\..*=1 "):
        train(broken, tmp_path, SHORT)
