"""Training of the teacher of ``scenes``: conditional flow matching on latents, in as many sittings as it takes.

The learning rate is constant after its warm-up, so that the length need not be known from the start; the last fifth of
``num_steps`` takes it to zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.embedded_teacher.flow_state import FlowState
from tools.embedded_teacher.flow_training import draw_sigma, has_compiler
from tools.embedded_teacher.muon import Muon, split_parameters
from tools.scenes.classes import NO_CLASS, classes_loss
from tools.scenes.heads import InTraining
from tools.scenes.layout import layout_loss
from tools.scenes.networks import PATCH, build_networks, build_tokenizer
from tools.scenes.reading import ASKED, asked_of_tokens


@dataclass(frozen=True)
class FlowSettings:
    """How the teacher is trained.

    Attributes:
        sigma_mean: Of the levels' logit. How many things there are and where is decided above .8, dots below .3, little
            between: of a network that had seen few levels above .8, the things of .45 of the pictures were right when
            it drew them from pure noise, and of .82 when it began at .8 of a real picture.
        null_share: Of the prompts, those that are left empty, for guidance.
        decay_share: Of the steps, those in which the rates fall to zero.
        layout, reading: Weights of the helping heads' losses.
        half: In bf16.
    """

    num_steps: int = 24_000
    batch: int = 128
    lr: float = 1.5e-3
    matrix_lr: float = 0.02
    warmup_steps: int = 200
    decay_share: float = 0.2
    weight_decay: float = 0.01
    ema_decay: float = 0.9995
    sigma_mean: float = 1.0
    null_share: float = 0.1
    layout: float = 0.2
    reading: float = 0.2
    save_every: int = 250
    half: bool = True
    compiled: bool = field(default_factory=has_compiler)


@dataclass(frozen=True)
class LatentPool:
    """Standardised latents ``(n, c, 12, 12)``, what cells show and prompts ask for, token ids ``(n, k, 20)``."""

    x0: Tensor
    cells: Tensor
    asked: Tensor
    ids: Tensor
    null: Tensor


def losses(
    networks: InTraining, pool: LatentPool, settings: FlowSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw one random batch; compute the loss of its ``velocity``, of its ``layout`` and of ``reading`` its prompts.

    The velocity is ``noise - x0`` at ``x_sigma = (1 - sigma) x0 + sigma noise``.
    """
    index = torch.randint(len(pool.x0), (settings.batch,), generator=generator)
    spelt = torch.randint(pool.ids.shape[1], (settings.batch,), generator=generator)
    ids = pool.ids[index, spelt].long()
    ids[torch.rand(settings.batch, generator=generator) < settings.null_share] = pool.null.long()
    sigma = draw_sigma(settings.batch, generator, mean=settings.sigma_mean)
    x0 = pool.x0[index].float()
    noise = torch.randn(x0.shape, generator=generator)
    weight = sigma[:, None, None, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.half), attention(settings):
        cond = networks.encode(ids)
        velocity, layout = networks.velocity_and_layout((1 - weight) * x0 + weight * noise, sigma, cond)
        read = networks.reading(cond.tokens[:, : ids.shape[1]])
    told = asked_of_tokens(pool.asked[index], ids, int(pool.null[-1]))
    return {
        "velocity": (velocity.float() - (noise - x0)).square().mean(),
        "layout": layout_loss(layout, pool.cells[index]),
        "reading": classes_loss(read.flatten(0, 1), told, ASKED) / (told[0] != NO_CLASS).sum(),
    }


def attention(settings: FlowSettings) -> AbstractContextManager[None]:
    """Choose the kernel of attention: plain products for bfloat16.

    On a CPU the fused kernel's gradient in bfloat16 takes 1.4 times as long as all the rest of a step together.
    """
    return sdpa_kernel(SDPBackend.MATH) if settings.half else nullcontext()


def share_of_rate(step: int, settings: FlowSettings) -> float:
    """The share of the highest learning rates: up to one, one, and down to zero."""
    left = (settings.num_steps - step) / (settings.decay_share * settings.num_steps)
    return min(1.0, (step + 1) / settings.warmup_steps, left)


def fresh_state(settings: FlowSettings, seed: int) -> FlowState[InTraining]:
    """Build the networks, their running average and the optimisers: Muon for the matrices, AdamW for the rest."""
    torch.manual_seed(seed)
    networks = InTraining(build_networks(build_tokenizer()), patch=PATCH)
    matrices, rest = split_parameters(networks)
    optimisers = (
        Muon(
            matrices,
            lr=settings.matrix_lr,
            weight_decay=settings.weight_decay,
            dtype=torch.bfloat16 if settings.half else torch.float32,
        ),
        torch.optim.AdamW(rest, lr=settings.lr, weight_decay=settings.weight_decay, fused=True),
    )
    return FlowState(networks, deepcopy(networks).requires_grad_(False), optimisers)


def train_flow(
    pool: LatentPool,
    settings: FlowSettings,
    state: FlowState[InTraining],
    *,
    seed: int,
    state_file: Path,
    seconds: float,
    report: Callable[[int, dict[str, float]], None],
) -> bool:
    """Train for at most so many seconds, and keep the state in ``state_file``.

    Every random number of a step comes from (seed, step), so a training in many sittings ends as one in a single one.

    Returns:
        Whether all steps are done.
    """
    if settings.compiled:
        state.networks.transformer.compile(dynamic=False)
    weights: list[Tensor] = list(state.networks.parameters())
    averages: list[Tensor] = list(state.ema.parameters())
    running, counted, ends = torch.zeros(3), 0, time.monotonic() + seconds
    while state.step < settings.num_steps and time.monotonic() < ends:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
        state.set_rates(share_of_rate(state.step, settings))
        found = losses(state.networks, pool, settings, generator)
        state.move(found["velocity"] + settings.layout * found["layout"] + settings.reading * found["reading"])
        running += torch.stack([value.detach() for value in found.values()])
        counted += 1
        # young averages forget their random start faster
        torch._foreach_lerp_(averages, weights, 1 - min(settings.ema_decay, state.step / (9 + state.step)))
        if state.step % 100 == 0:
            report(state.step, dict(zip(found, (running / counted).tolist(), strict=True)))
            running, counted = torch.zeros(3), 0
        if state.step % settings.save_every == 0:
            state.save(state_file)
    state.save(state_file)
    return state.step >= settings.num_steps
