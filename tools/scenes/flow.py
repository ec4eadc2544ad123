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
from tools.scenes.layout import InTraining, layout_loss
from tools.scenes.networks import PATCH, build_networks, build_tokenizer

NULL_SHARE = 0.1


@dataclass(frozen=True)
class FlowSettings:
    """How the teacher is trained; bf16 products unless ``half`` is off, ``layout`` is the weight of that loss."""

    num_steps: int = 60_000
    batch: int = 128
    lr: float = 1.5e-3
    matrix_lr: float = 0.02
    warmup_steps: int = 200
    decay_share: float = 0.2
    weight_decay: float = 0.01
    ema_decay: float = 0.9995
    layout: float = 0.2
    save_every: int = 250
    half: bool = True
    compiled: bool = field(default_factory=has_compiler)


@dataclass(frozen=True)
class LatentPool:
    """Standardised latents ``(n, c, 12, 12)``, what covers their cells, and token ids of sentences ``(n, k, 20)``."""

    x0: Tensor
    cells: Tensor
    ids: Tensor
    null: Tensor


def losses(
    networks: InTraining, pool: LatentPool, settings: FlowSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one random batch, and give the error of its velocity and of its layout.

    The velocity is ``noise - x0`` at ``x_sigma = (1 - sigma) x0 + sigma noise``.
    """
    index = torch.randint(len(pool.x0), (settings.batch,), generator=generator)
    spelt = torch.randint(pool.ids.shape[1], (settings.batch,), generator=generator)
    ids = pool.ids[index, spelt].long()
    ids[torch.rand(settings.batch, generator=generator) < NULL_SHARE] = pool.null.long()
    sigma = draw_sigma(settings.batch, generator)
    x0 = pool.x0[index].float()
    noise = torch.randn(x0.shape, generator=generator)
    weight = sigma[:, None, None, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.half), attention(settings):
        velocity, layout = networks.velocity_and_layout((1 - weight) * x0 + weight * noise, sigma, networks.encode(ids))
    return (velocity.float() - (noise - x0)).square().mean(), layout_loss(layout, pool.cells[index])


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
    running, counted, ends = torch.zeros(2), 0, time.monotonic() + seconds
    while state.step < settings.num_steps and time.monotonic() < ends:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
        state.set_rates(share_of_rate(state.step, settings))
        velocity, layout = losses(state.networks, pool, settings, generator)
        state.move(velocity + settings.layout * layout)
        running += torch.stack([velocity.detach(), layout.detach()])
        counted += 1
        # young averages forget their random start faster
        torch._foreach_lerp_(averages, weights, 1 - min(settings.ema_decay, state.step / (9 + state.step)))
        if state.step % 100 == 0:
            report(state.step, dict(zip(("velocity", "layout"), (running / counted).tolist(), strict=True)))
            running, counted = torch.zeros(2), 0
        if state.step % settings.save_every == 0:
            state.save(state_file)
    state.save(state_file)
    return state.step >= settings.num_steps
