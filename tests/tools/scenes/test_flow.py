"""The batches that the teacher learns from: picture, cells and prompt of one and the same scene."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from fewstep.embedded.scenes.grammar import draw_scene
from tools.embedded_teacher.flow_training import UNIFORM_SIGMA_SHARE
from tools.embedded_teacher.teacher import PromptEmbeds
from tools.scenes.classes import NO_CLASS
from tools.scenes.flow import FlowSettings, LatentPool, losses
from tools.scenes.heads import InTraining
from tools.scenes.layout import ASPECTS, CLASSES, cells_of
from tools.scenes.networks import PATCH, build_networks, build_tokenizer, tokenize
from tools.scenes.pictures import draw
from tools.scenes.reading import ASKED, asked_of
from tools.scenes.workshop import spelling

SETTINGS = FlowSettings(batch=64, null_share=0.0, half=False)


@pytest.fixture(scope="module")
def pool() -> LatentPool:
    rng, tokenizer = random.Random(0), build_tokenizer()
    drawn = [draw(draw_scene(rng), rng) for _ in range(12)]
    told = [spelling(picture, rng) for picture in drawn for _ in range(2)]
    return LatentPool(
        x0=torch.randn(12, 8, 12, 12, generator=torch.Generator().manual_seed(0)),
        cells=torch.stack([cells_of(picture) for picture in drawn]),
        asked=torch.stack([asked_of(picture.scene) for picture in drawn]),
        ids=tokenize(tokenizer, told).view(12, 2, -1).to(torch.int16),
        null=tokenize(tokenizer, [""])[0].to(torch.int16),
    )


class Oracle:
    """Knows by its prompt which picture is meant, and says the truth of it."""

    def __init__(self, pool: LatentPool) -> None:
        self.pool = pool
        self.levels: list[float] = []

    def encode(self, ids: Tensor) -> PromptEmbeds:
        same = (self.pool.ids[None].long() == ids[:, None, None]).all(-1).any(-1)
        which = same.float().argmax(1)
        return PromptEmbeds(which[:, None, None].expand(-1, 2 * ids.shape[1], 1).float(), which.float())

    def velocity_and_layout(self, x: Tensor, sigma: Tensor, cond: PromptEmbeds) -> tuple[Tensor, Tensor]:
        self.levels += sigma.tolist()
        which, level = cond.pooled.long(), sigma[:, None, None, None]
        x0 = self.pool.x0[which]
        logits = torch.zeros(len(x), 36, PATCH * PATCH, CLASSES)
        for row, column in itertools.product(range(12), repeat=2):
            token, inside = row // 2 * 6 + column // 2, row % 2 * 2 + column % 2
            logits[:, token, inside] = _said(self.pool.cells[which, :, row, column], [*ASPECTS.values()])
        return (x - x0) / level, logits

    def reading(self, tokens: Tensor) -> Tensor:
        return _said(self.pool.asked[tokens[..., 0].long()], [*ASKED.values()])


def _said(told: Tensor, sizes: list[int]) -> Tensor:
    """Logits that are sure of the classes ``(..., questions)``."""
    parts = []
    for number, classes in enumerate(sizes):
        own = told[..., number].long()
        parts.append(30 * torch.nn.functional.one_hot(torch.where(own == NO_CLASS, 0, own), classes).float())
    return torch.cat(parts, -1)


def test_who_says_the_truth_of_every_picture_has_no_loss(pool: LatentPool) -> None:
    found = losses(Oracle(pool), pool, SETTINGS, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    assert found.keys() == {"velocity", "layout", "reading"}
    assert max(value.item() for value in found.values()) < 1e-6


def test_levels_are_drawn_around_the_mean_that_is_asked_for(pool: LatentPool) -> None:
    oracle = Oracle(pool)
    for seed in range(20):
        losses(oracle, pool, SETTINGS, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    # those that are drawn evenly have the mean 0; that of 1,280 logits is known to .04
    told = (1 - UNIFORM_SIGMA_SHARE) * SETTINGS.sigma_mean
    assert torch.tensor(oracle.levels).logit().mean() == pytest.approx(told, abs=0.15)


def test_reading_teaches_both_text_encoders(pool: LatentPool) -> None:
    torch.manual_seed(0)
    networks = InTraining(build_networks(build_tokenizer()), patch=PATCH)
    found = losses(networks, pool, FlowSettings(batch=2, half=False), torch.Generator().manual_seed(2))
    torch.autograd.backward(found["reading"])
    for encoder in (networks.text_encoder, networks.text_encoder_2):
        assert encoder.text_model.embeddings.token_embedding.weight.grad.abs().sum() > 0
