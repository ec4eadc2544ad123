"""Continuous-time distribution matching as its formulas stand, without any saving: what the trainer is compared with.

Every loss asks the student itself, whole trajectories of the whole batch are simulated, text encoders are called at
every step, every probe is a call of its own (the two branches of guidance are one), all networks are whole modules and
their optimisers torch's own, as in the published code. It shares no arithmetic with ``fewstep.methods``: agreement of
the two is evidence for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import OptimiserConfig, RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.data.prompts import prompt_index
from fewstep.devices import DTYPES
from fewstep.distributed.rounds import Round
from fewstep.methods.draws import Draws, TermDraws
from fewstep.methods.simulation import SimulationConfig
from fewstep.methods.terms import CfgAugmentation, OffTrajectory, Term
from fewstep.training.optimiser import lr_factor
from fewstep.training.step_draws import DrawSource


@dataclass(frozen=True)
class Anchor:
    """Where each sample's trajectory is looked at, and what the student answered there."""

    x: Tensor
    sigma: Tensor
    velocity: Tensor


class PlainTrainer:
    """Student, teacher, fake score and the average of the student, with the step that moves them.

    Args:
        config: A recipe with all weights trained in float32 and terms that ask at the anchor or off the trajectory.
        adapter: The backbone.
        prompts: All of them.
        draw: Random numbers of a step for the rows of the batch.
        device: Where everything is.
    """

    def __init__(
        self,
        config: RunConfig,
        adapter: ModelAdapter,
        prompts: Sequence[str],
        draw: DrawSource,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.adapter, self.prompts, self.draw = config, adapter, prompts, draw
        self.device = device or torch.device("cpu")
        self.compute = adapter.compute_dtype = DTYPES[config.precision.compute]
        self._prepare_prompts()
        self.student = self._network(trained=True)
        self.teacher = self._network(trained=False)
        self.fake_score = self._network(trained=True)
        self.average = {name: value.detach().clone() for name, value in self.student.named_parameters()}
        self.student_adamw = _adamw(self.student, config.student)
        self.fake_adamw = _adamw(self.fake_score, config.fake_score)
        self.step = 0

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher, "fake_score": self.fake_score}

    def resident(self) -> list[Tensor]:
        """Every tensor that is there between two steps."""
        modules = [*self.networks.values(), *self._encoders()]
        tensors = [value for module in modules for value in [*module.parameters(), *module.buffers()]]
        moments = [value for adamw in (self.student_adamw, self.fake_adamw) for value in _tensors(adamw)]
        return [*tensors, *moments, *self.average.values(), *self.null_cond.tensors.values()]

    def run_step(self) -> None:
        """One fake-score update and, every ``student.every`` steps, one student update."""
        rows = range(self.config.batch)
        updates_student = (self.step + 1) % self.config.student.every == 0
        draws = self.draw(self.step, Round(rows, rows, 1.0), updates_student).to(self.device)
        cond = self._encode(rows)
        anchor = self._simulate(cond, draws)
        self._update_fake_score(anchor, cond, draws)
        if updates_student:
            self._update_student(anchor, cond, draws)
        self.step += 1

    def _network(self, *, trained: bool) -> nn.Module:
        network = self.adapter.load_network(dtype=torch.float32 if trained else self.compute).eval()
        network = network.to(self.device).requires_grad_(trained)
        if trained and self.config.memory.gradient_checkpointing:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        return network

    def _prepare_prompts(self) -> None:
        parts = {self.adapter.network_component: None, "vae": None}
        self.pipeline = self.adapter.load_pipeline(dtype=torch.float32, **parts)
        self.null_cond = self.adapter.encode_null(self.pipeline)

    def _encoders(self) -> list[nn.Module]:
        return self.adapter.get_text_encoders(self.pipeline)

    def _encode(self, rows: range) -> Conditioning:
        start = self.step * self.config.batch
        indices = [prompt_index(self.config.seed, start + j, len(self.prompts)) for j in rows]
        return self.adapter.encode(self.pipeline, [self.prompts[index] for index in indices])

    def _ask(self, network: nn.Module, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.compute, enabled=self.compute != torch.float32):
            return self.adapter.velocity(network, NoisyLatent(x, sigma), cond)

    @torch.no_grad()
    def _simulate(self, cond: Conditioning, draws: Draws) -> Anchor:
        sigmas = self.config.schedule.sigmas(draws.inner_u, self.adapter.to_sigma)
        levels = torch.cat([sigmas, torch.zeros_like(sigmas[:, :1])], dim=1)
        x = draws.initial_noise * self.adapter.initial_scale
        states, velocities = [], []
        for k in range(draws.num_anchors):
            states.append(x)
            velocities.append(self._ask(self.student, x, levels[:, k], cond))
            x = x + _wide(levels[:, k + 1] - levels[:, k]) * velocities[-1]
        own, rows = torch.tensor(draws.anchor), torch.arange(len(draws.anchor))
        return Anchor(torch.stack(states)[own, rows], sigmas[rows, own], torch.stack(velocities)[own, rows])

    def _update_fake_score(self, anchor: Anchor, cond: Conditioning, draws: Draws) -> None:
        x0, noise = anchor.x - _wide(anchor.sigma) * anchor.velocity, draws.denoising_noise
        sigma = self._level(self.config.fake_score.sigma, draws.denoising_u, anchor.sigma)
        answer = self._ask(self.fake_score, (1 - _wide(sigma)) * x0 + _wide(sigma) * noise, sigma, cond)
        (answer - (noise - x0)).square().mean().backward()  # type: ignore[no-untyped-call]
        _move(self.fake_score, self.fake_adamw, self.config.fake_score, self.step, self._total_steps)
        align = self.config.fake_score.align
        if align is not None:
            _pull_towards(self.fake_score.parameters(), self.student.parameters(), 1 - align.decay)

    def _update_student(self, anchor: Anchor, cond: Conditioning, draws: Draws) -> None:
        losses = [
            term.weight * self._loss(term, anchor, cond, draws.terms[name])
            for name, term in self.config.terms.active().items()
        ]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        updates = self.step // self.config.student.every
        _move(self.student, self.student_adamw, self.config.student, updates, self.config.budget.student_updates)
        if self.config.student.ema is not None:
            decay = min(self.config.student.ema, (2 + updates) / (11 + updates))
            _pull_towards(self.average.values(), self.student.parameters(), 1 - decay)

    def _loss(self, term: Term, anchor: Anchor, cond: Conditioning, draws: TermDraws) -> Tensor:
        x, sigma = anchor.x, anchor.sigma
        if isinstance(term.query, OffTrajectory):
            sigma = self._level(term.query.sigma, draws.query_u, anchor.sigma)
            x = anchor.x + _wide(sigma - anchor.sigma) * anchor.velocity
        x0 = x - _wide(sigma) * self._ask(self.student, x, sigma, cond)
        with torch.no_grad():
            at = self._level(term.probe, draws.probe_u, sigma)
            probe = (1 - _wide(at)) * x0 + _wide(at) * draws.probe_noise
            reference, direction = self._look(term, probe, at, cond)
            size = (reference - x0).abs().flatten(1).mean(1).clamp_min(term.floor)
            target = x0 + direction / _wide(size)
        return (x0 - target).square().mean()

    def _look(self, term: Term, probe: Tensor, sigma: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """The prediction from which the normaliser is taken, and the direction."""
        if isinstance(term, CfgAugmentation):
            both = Conditioning.cat([cond, self.null_cond.expand(len(cond))])
            answers = self._ask(self.teacher, torch.cat([probe] * 2), torch.cat([sigma] * 2), both).chunk(2)
            x0_cond, x0_null = (probe - _wide(sigma) * answer for answer in answers)
            return x0_cond, term.scale * (x0_cond - x0_null)
        x0_teacher = probe - _wide(sigma) * self._ask(self.teacher, probe, sigma, cond)
        x0_fake = probe - _wide(sigma) * self._ask(self.fake_score, probe, sigma, cond)
        return x0_teacher, x0_teacher - x0_fake

    def _level(self, law: Any, u: Tensor, query_sigma: Tensor) -> Tensor:
        bounds = self.config.sigma_range
        level: Tensor = law.sigma(u, query_sigma=query_sigma)
        return level.clamp(bounds.low, min(bounds.high, self.adapter.sigma_max))

    @property
    def _total_steps(self) -> int:
        return self.config.budget.student_updates * self.config.student.every


def require_plain(config: RunConfig) -> None:
    """Raise ValueError for a recipe that these formulas are not about."""
    terms = config.terms.active().values()
    ours = config.terms.active().keys() <= {"ca", "dm", "cdm"}
    asked = not config.terms.noisy_queries() and not config.terms.needs_whole_simulation()
    asked = (
        asked
        and all((term.probe_of, term.warmup, term.normalise_over) == ("answer", 0, 1) for term in terms)
        and config.simulation == SimulationConfig()
    )
    asked = asked and (config.terms.ca is None or config.terms.ca.renormalise is None)
    unguided = all(term.asks_guidance != term.asks_fake_score for term in terms)
    full = config.student.weights.kind == config.fake_score.weights.kind == "full"
    align = config.fake_score.align
    each = align is None or (align.after, align.every) == ("fake_score", 1)
    alone = config.terms.isg is config.terms.dp is None
    alone = alone and config.fake_score.target == "anchor" and not config.draw.reuse_trajectory
    if not (ours and asked and unguided and full and each and alone):
        raise ValueError("the plain formulation knows full weights, and terms as the released settings have them")


def _wide(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def _adamw(network: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        network.parameters(), lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )


def _tensors(adamw: torch.optim.AdamW) -> list[Tensor]:
    return [value for state in adamw.state.values() for value in state.values() if isinstance(value, Tensor)]


def _move(network: nn.Module, adamw: torch.optim.AdamW, config: OptimiserConfig, update: int, total: int) -> None:
    if config.clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    for group in adamw.param_groups:
        group["lr"] = config.lr * lr_factor(update, warmup=config.warmup, schedule=config.lr_schedule, total=total)
    adamw.step()
    adamw.zero_grad(set_to_none=True)


@torch.no_grad()
def _pull_towards(values: Any, targets: Any, share: float) -> None:
    for value, target in zip(values, targets, strict=True):
        value.lerp_(target.detach(), share)
