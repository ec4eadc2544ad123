"""One training step, and the state that a run consists of.

draws -> simulate -> fake-score update (AdamW, IDA) -> every few steps: student update (AdamW, EMA)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.backbones.protocol import Conditioning, ModelAdapter, PromptBatch
from fewstep.config.run_config import RunConfig
from fewstep.core.objectives import weighted_mean
from fewstep.core.sigmas import SigmaRange
from fewstep.data.order import prompt_index
from fewstep.errors import ConfigError
from fewstep.methods.cdm import Method, Simulated, fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws, Streams
from fewstep.methods.isg import segment_grid
from fewstep.methods.terms import FreshNoise
from fewstep.roles.averaging import ExponentialMovingAverage, align
from fewstep.roles.role import Roles
from fewstep.training.finite import read_finite
from fewstep.training.optimiser import RoleOptimiser

DrawSource = Callable[[int, range, bool], Draws]
"""Step, rows of the global batch, whether the student is updated -> the random numbers."""


class Embeddings(Protocol):
    """Prompt embeddings by index; :class:`~fewstep.data.embeddings.EmbeddingCache` is one."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Conditioning: ...

    @property
    def null(self) -> Conditioning: ...


@dataclass(frozen=True)
class StepReport:
    """What one step measured, as plain numbers.

    Attributes:
        step: Number of the step, from 0.
        num_anchors: Length of its schedule.
        figures: ``loss/NAME``, ``grad_norm/ROLE`` and ``lr/ROLE``.
        student_updated: Whether the student moved.
    """

    step: int
    num_anchors: int
    figures: dict[str, float]
    student_updated: bool


@dataclass(frozen=True)
class _Microbatch:
    """Rows of the global batch that go through the networks together."""

    prompts: PromptBatch
    draws: Draws
    simulated: Simulated


def build_method(config: RunConfig, adapter: ModelAdapter) -> Method:
    """The algorithm of a recipe on a backbone: noise levels never exceed what the network was trained at."""
    if config.terms.isg is not None:
        try:
            segment_grid(config.terms.isg, adapter.to_sigma)
        except ValueError as error:
            raise ConfigError(f"{error}.") from error
    bounds = config.sigma_range
    return Method(
        schedule=config.schedule,
        terms=config.terms,
        sigma_range=SigmaRange(low=bounds.low, high=min(bounds.high, adapter.sigma_max)),
        fake_sigma=config.fake_score.sigma,
        fake_target=config.fake_score.target,
        to_sigma=adapter.to_sigma,
        initial_scale=adapter.initial_scale,
        batch_frozen_calls=config.savings.batch_frozen_calls,
    )


class Trainer:
    """Everything that changes during a run, and the step that changes it.

    Args:
        config: The resolved recipe.
        adapter: The backbone.
        roles: Student, teacher and fake score on the device.
        embeddings: Prompt embeddings.
        device: Where the networks are.
        draw: Random numbers of a step for some rows of the batch; the run's named streams unless given.
    """

    def __init__(
        self,
        config: RunConfig,
        adapter: ModelAdapter,
        roles: Roles,
        embeddings: Embeddings,
        device: torch.device,
        *,
        draw: DrawSource | None = None,
    ) -> None:
        self.config = config
        self.adapter = adapter
        self.method = build_method(config, adapter)
        self.roles = roles
        self.embeddings = embeddings
        self.device = device
        self.latent_shape = adapter.latent_shape(config.backbone.height, config.backbone.width)
        self.draw = draw or self._draw_from_streams
        self.step = 0
        updates = config.budget.student_updates
        self.student_optimiser = RoleOptimiser(roles.student.parameters(), config.student, total_updates=updates)
        self.fake_optimiser = RoleOptimiser(
            roles.fake_score.parameters(), config.fake_score, total_updates=updates * config.student.every
        )
        decay = config.student.ema
        self.ema = None if decay is None else ExponentialMovingAverage(self.student_weights(), decay=decay)

    @property
    def total_steps(self) -> int:
        """Steps of the whole budget."""
        return self.config.budget.student_updates * self.config.student.every

    @property
    def student_updates(self) -> int:
        """Student updates so far."""
        return self.student_optimiser.updates

    def student_weights(self) -> dict[str, Tensor]:
        """The student's trainable parameters by name."""
        return {name: p for name, p in self.roles.student.network.named_parameters() if p.requires_grad}

    def export_weights(self) -> dict[str, Tensor]:
        """What sampling and export use: the student's average, or its weights where no average is kept."""
        return self.student_weights() if self.ema is None else self.ema.shadow

    def run_step(self) -> StepReport:
        """One fake-score update and, every ``student.every`` steps, one student update."""
        updates_student = (self.step + 1) % self.config.student.every == 0
        figures: dict[str, float] = {}
        microbatches = self._update_fake_score(figures, updates_student=updates_student)
        if updates_student:
            self._update_student(microbatches, figures)
        num_anchors = microbatches[0].draws.num_anchors
        report = StepReport(self.step, num_anchors, figures, student_updated=updates_student)
        self.step += 1
        return report

    def _update_fake_score(self, figures: dict[str, float], *, updates_student: bool) -> list[_Microbatch]:
        loss = torch.zeros((), device=self.device)
        microbatches = []
        splits = self._splits()
        # a graph kept for every microbatch would hold the memory that splitting saves
        keep_graph = updates_student and self.config.savings.keep_anchor_graph and len(splits) == 1
        for positions in splits:
            micro = self._simulate(positions, with_terms=updates_student, anchor_gradient=keep_graph)
            losses = fake_score_losses(self.method, self.roles.fake_score, micro.simulated, micro.prompts, micro.draws)
            share = weighted_mean(losses, self.config.batch)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
            microbatches.append(micro)
        self._apply("fake_score", self.fake_optimiser, {"fake_score": loss}, figures)
        self._align("fake_score", self.fake_optimiser.updates)
        return microbatches

    def _update_student(self, microbatches: list[_Microbatch], figures: dict[str, float]) -> None:
        weights = self.config.terms.weights()
        shares = {name: torch.zeros((), device=self.device) for name in weights}
        for micro in microbatches:
            losses = student_losses(
                self.method,
                student=self.roles.student,
                teacher=self.roles.teacher,
                fake_score=self.roles.fake_score,
                guided_teacher=self.roles.teacher.guided,
                simulated=micro.simulated,
                prompts=micro.prompts,
                draws=micro.draws,
            )
            means = {name: weighted_mean(loss, self.config.batch) for name, loss in losses.items()}
            torch.stack([weights[name] * mean for name, mean in means.items()]).sum().backward()  # type: ignore[no-untyped-call]
            for name, mean in means.items():
                shares[name] += mean.detach()
        self._apply("student", self.student_optimiser, shares, figures)
        self._align("student", self.student_optimiser.updates)
        if self.ema is not None:
            self.ema.update(self.student_weights(), update=self.student_optimiser.updates)

    def _splits(self) -> list[range]:
        size = self.config.parallel.microbatch or self.config.batch
        return [range(start, min(start + size, self.config.batch)) for start in range(0, self.config.batch, size)]

    def _draw_from_streams(self, step: int, positions: range, with_terms: bool) -> Draws:
        terms = self.config.terms.active() if with_terms else {}
        return Draws.for_step(
            Streams(self.config.seed),
            step,
            schedule=self.config.schedule,
            latent_shape=self.latent_shape,
            positions=positions,
            concurrent=positions,
            terms=list(terms),
            noisy_queries=[name for name, term in terms.items() if isinstance(term.query, FreshNoise)],
            num_segments=len(isg.levels) if with_terms and (isg := self.config.terms.isg) is not None else None,
        )

    def _simulate(self, positions: range, *, with_terms: bool, anchor_gradient: bool) -> _Microbatch:
        draws = self.draw(self.step, positions, with_terms).to(self.device)
        start = self.step * self.config.batch
        indices = [prompt_index(self.config.seed, start + j, len(self.embeddings)) for j in positions]
        cond = self.embeddings.batch(indices).to(self.device)
        null_cond = self.embeddings.null.to(self.device).expand(len(indices))
        prompts = self.adapter.prompt_batch(cond, null_cond)
        simulated = simulate(self.method, self.roles.student, prompts, draws, anchor_gradient=anchor_gradient)
        return _Microbatch(prompts, draws, simulated)

    def _apply(self, role: str, optimiser: RoleOptimiser, losses: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Clip, check and move one role; the only host read of its update."""
        measured = {f"loss/{name}": loss for name, loss in losses.items()}
        measured[f"grad_norm/{role}"] = optimiser.clip()
        figures |= read_finite(measured, role=role.replace("_", " "), step=self.step)
        figures[f"lr/{role}"] = optimiser.lr
        optimiser.update()

    def _align(self, after: str, updates: int) -> None:
        alignment = self.config.fake_score.align
        if alignment is not None and alignment.after == after and updates % alignment.every == 0:
            align(self.roles.fake_score.parameters(), self.roles.student.parameters(), decay=alignment.decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides its configuration: weights, averages, optimisers, counters."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

        state: dict[str, Any] = {"progress": {"step": self.step}}
        for role, optimiser in self._trained().items():
            network = getattr(self.roles, role).network
            state[role] = get_model_state_dict(network)
            state[f"{role}_optimiser"] = get_optimizer_state_dict(network, optimiser.adamw)
            state["progress"][f"{role}_updates"] = optimiser.updates
        if self.ema is not None:
            state["ema"] = dict(self.ema.shadow)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict` made."""
        from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

        for role, optimiser in self._trained().items():
            network = getattr(self.roles, role).network
            set_model_state_dict(network, state[role])
            set_optimizer_state_dict(network, optimiser.adamw, optim_state_dict=state[f"{role}_optimiser"])
            optimiser.updates = state["progress"][f"{role}_updates"]
        if self.ema is not None:
            for name, value in state["ema"].items():
                self.ema.shadow[name].copy_(value)
        self.step = state["progress"]["step"]

    def _trained(self) -> dict[str, RoleOptimiser]:
        return {"student": self.student_optimiser, "fake_score": self.fake_optimiser}
