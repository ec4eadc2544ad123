"""Training of the demo's teacher: conditional flow matching on precomputed latents."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fewstep.embedded.digits.prompts import NUM_COLOURS, NUM_DIGITS, all_prompts
from tools.embedded_teacher.flow_state import FlowState
from tools.embedded_teacher.muon import Muon, split_parameters
from tools.embedded_teacher.teacher import TeacherNetworks, build_networks, build_tokenizer, tokenize

NUM_FULL = NUM_DIGITS * NUM_COLOURS
OPEN_COLOUR_FROM, OPEN_DIGIT_FROM = NUM_FULL, NUM_FULL + NUM_DIGITS
OPEN_BOTH, NULL_PROMPT = NUM_FULL + NUM_DIGITS + NUM_COLOURS, NUM_FULL + NUM_DIGITS + NUM_COLOURS + 1

# shares of the prompts that name both, the digit only, the colour only, neither; then a tenth of all is dropped to ""
PROMPT_SHARES = (0.75, 0.10, 0.08, 0.07)
NULL_SHARE = 0.10
UNIFORM_SIGMA_SHARE = 0.30


@dataclass(frozen=True)
class LatentPool:
    """Standardised latents (``(n, 4, 8, 8)``) with their digit and colour."""

    x0: Tensor
    digits: Tensor
    colours: Tensor


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler: the one that ``CXX`` names, else g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


@dataclass(frozen=True)
class FlowSettings:
    """How the teacher is trained.

    ``compiled`` runs the transformer through torch.compile: about twice as fast once compiled, but it needs a C++
    compiler, and rounding differs. The default asks whether there is one.

    From step ``focus_from`` on, noise levels are drawn around ``sigmoid(focus_mean)``, where a picture's digit is
    decided: unguided samples otherwise drift between digits, as that takes place in few of the evenly drawn levels.
    """

    num_steps: int = 9_000
    focus_from: int = 6_500
    focus_mean: float = 1.2
    batch: int = 64
    lr: float = 1.5e-3
    matrix_lr: float = 0.02
    warmup_steps: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    save_every: int = 1_000
    compiled: bool = field(default_factory=has_compiler)


def draw_sigma(num: int, generator: torch.Generator, *, mean: float = 0.0) -> Tensor:
    """Draw noise levels: 70 % logit-normal(mean, 1), 30 % uniform, stratified over the batch."""
    strata = (torch.randperm(num, generator=generator) + torch.rand(num, generator=generator)) / num
    normal = torch.special.ndtri(strata.clamp(1e-5, 1 - 1e-5))
    uniform = torch.rand(num, generator=generator) < UNIFORM_SIGMA_SHARE
    return torch.where(uniform, strata, (mean + normal).sigmoid())


def draw_prompt_index(digits: Tensor, colours: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a prompt for every picture, as its position in :func:`~fewstep.embedded.digits.prompts.all_prompts`."""
    num = len(digits)
    kind = torch.multinomial(torch.tensor(PROMPT_SHARES), num, replacement=True, generator=generator)
    null = torch.rand(num, generator=generator) < NULL_SHARE
    choices = torch.stack(
        [
            digits * NUM_COLOURS + colours,
            OPEN_COLOUR_FROM + digits,
            OPEN_DIGIT_FROM + colours,
            torch.full_like(digits, OPEN_BOTH),
        ]
    )
    return torch.where(null, NULL_PROMPT, choices.gather(0, kind[None])[0])


def flow_matching_loss(
    networks: TeacherNetworks,
    pool: LatentPool,
    ids: Tensor,
    *,
    batch: int,
    generator: torch.Generator,
    sigma_mean: float = 0.0,
) -> Tensor:
    """Regress the velocity ``noise - x0`` at ``x_sigma = (1 - sigma) x0 + sigma noise`` for one random batch."""
    index = torch.randint(len(pool.x0), (batch,), generator=generator)
    prompt = draw_prompt_index(pool.digits[index], pool.colours[index], generator)
    sigma = draw_sigma(batch, generator, mean=sigma_mean)
    x0 = pool.x0[index]
    noise = torch.randn(x0.shape, generator=generator)
    weight = sigma[:, None, None, None]
    # each prompt of the batch is encoded once
    used, position = torch.unique(prompt, return_inverse=True)
    cond = networks.encode(ids[used]).take(position)
    velocity = networks.velocity((1 - weight) * x0 + weight * noise, sigma, cond)
    return (velocity - (noise - x0)).square().mean()


def share_of_rate(step: int, settings: FlowSettings) -> float:
    """The share of the highest learning rates: linear from above zero to one, then half a cosine to zero."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * step / settings.num_steps))


def fresh_state(settings: FlowSettings, seed: int) -> FlowState[TeacherNetworks]:
    """Build the networks, their running average and the optimisers: Muon for the matrices, AdamW for the rest."""
    torch.manual_seed(seed)
    networks = build_networks(build_tokenizer())
    matrices, rest = split_parameters(networks)
    optimisers = (
        Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(rest, lr=settings.lr, weight_decay=settings.weight_decay, fused=True),
    )
    return FlowState(networks, deepcopy(networks).requires_grad_(False), optimisers)


def train_flow(
    pool: LatentPool,
    settings: FlowSettings,
    *,
    seed: int,
    state_file: Path,
    report: Callable[[int, dict[str, float]], None],
) -> TeacherNetworks:
    """Train transformer and text encoders; go on from ``state_file`` if it is there.

    Every random number of a step comes from (seed, step), so a run that was interrupted ends as if it had not been.

    Returns:
        The exponential moving average of the networks.

    Raises:
        NonFiniteError: A loss is not finite; what ``state_file`` holds is whole.
    """
    ids = tokenize(build_tokenizer(), all_prompts())
    state = fresh_state(settings, seed)
    if state_file.exists():
        state.load(state_file)
    if settings.compiled:
        state.networks.transformer.compile(dynamic=False)
    weights: list[Tensor] = list(state.networks.parameters())
    averages: list[Tensor] = list(state.ema.parameters())
    running = 0.0
    while state.step < settings.num_steps:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
        state.set_rates(share_of_rate(state.step, settings))
        focus = settings.focus_mean if state.step >= settings.focus_from else 0.0
        loss = flow_matching_loss(
            state.networks, pool, ids, batch=settings.batch, generator=generator, sigma_mean=focus
        )
        running += state.move(loss)
        # young averages forget their random start faster
        decay = min(settings.ema_decay, state.step / (9 + state.step))
        torch._foreach_lerp_(averages, weights, 1 - decay)
        if state.step % 100 == 0:
            report(state.step, {"loss": running / 100})
            running = 0.0
        if state.step % settings.save_every == 0:
            state.save(state_file)
    return state.ema.eval()
