"""One training step, and the state that a run consists of.

draws -> simulate -> fake-score update (AdamW, IDA) -> every few steps: student update (AdamW, EMA)

The student stands still between its updates, so one simulation can serve all steps up to the next (``draw``): what a
resumed run simulates again there is what the interrupted one had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import PromptBatch
from fewstep.core.objectives import weighted_mean
from fewstep.core.sigmas import SigmaRange
from fewstep.data.embeddings import Embeddings
from fewstep.data.prompts import prompt_index
from fewstep.distributed.rounds import Round, rounds
from fewstep.distributed.sharding import begin_gathering, settle
from fewstep.distributed.world import World, alone
from fewstep.errors import ConfigError, NonFiniteError
from fewstep.health.directions import view_figures, view_sums
from fewstep.methods.cdm import Method, fake_score_losses, simulate, student_losses
from fewstep.methods.draws import Draws
from fewstep.methods.isg import segment_grid
from fewstep.methods.simulation import Simulated
from fewstep.methods.terms import Views
from fewstep.roles.averaging import ExponentialMovingAverage, align, align_to_merged
from fewstep.roles.role import Role, Roles
from fewstep.roles.weights import FullWeights, LoraWeights
from fewstep.training.finite import blame_inputs, read_finite
from fewstep.training.optimiser import RoleOptimiser
from fewstep.training.step_draws import DrawSource, StepDraws


@dataclass(frozen=True)
class StepReport:
    """What one step measured, as plain numbers.

    Attributes:
        step: Number of the step, from 0.
        num_anchors: Length of its schedule.
        figures: ``loss/NAME``, ``grad_norm/ROLE``, ``lr/ROLE`` and, of student updates, ``health/NAME``.
        student_updated: Whether the student moved.
        stop: Whether any process was asked to stop.
    """

    step: int
    num_anchors: int
    figures: dict[str, float]
    student_updated: bool
    stop: bool = False


@dataclass(frozen=True)
class _Told:
    """What networks and losses are told about some rows of the global batch at one step."""

    prompts: PromptBatch
    draws: Draws


@dataclass(frozen=True)
class _Microbatch:
    """Rows of the global batch that go through the networks together.

    Attributes:
        told: None in a batch that is split: then it is read and drawn again, which takes less than keeping all of it.
    """

    rows: Round
    num_anchors: int
    simulated: Simulated
    told: _Told | None


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
        batch_frozen_calls=config.memory.batch_frozen_calls,
    )


class Trainer:
    """Everything that changes during a run, and the step that changes it.

    Args:
        config: The resolved recipe.
        adapter: The backbone.
        roles: Student, teacher and fake score on the device.
        embeddings: Prompt embeddings.
        device: Where the networks are.
        world: The processes of the run; this one alone unless given.
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
        world: World | None = None,
        draw: DrawSource | None = None,
    ) -> None:
        self.world = world or alone(device)
        self.config = config
        self.adapter = adapter
        sizes = [adapter.at_size(*size) for size in config.backbone.training_sizes]
        self._methods = [build_method(config, sized) for sized in sizes]
        shapes = [sized.latent_shape(sized.config.height, sized.config.width) for sized in sizes]
        self._draws = StepDraws(config, shapes)
        self.roles = roles
        self.embeddings = embeddings
        self.device = device
        self.draw = draw or self._draws
        self.step = 0
        self._shared: list[_Microbatch] = []  # simulated for the steps up to the next student update
        updates = config.budget.student_updates
        self.student_optimiser = RoleOptimiser(roles.student.weights(), config.student, total_updates=updates)
        self.fake_optimiser = RoleOptimiser(
            roles.fake_score.weights(), config.fake_score, total_updates=updates * config.student.every
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

    @property
    def rows_at_once(self) -> int:
        """Most samples that a process asks a network about together; of every process the same number."""
        return max(len(each.own) for each in self._rounds(rank=0))

    def lower_rates(self, factor: float) -> None:
        """Go on with this factor on the learning rates of the recipe."""
        for optimiser in self._trained().values():
            optimiser.lowered = factor

    def student_weights(self) -> Mapping[str, Tensor]:
        """The student's trained parameters by name."""
        return self.student_optimiser.parameters

    def export_weights(self) -> Mapping[str, Tensor]:
        """What sampling and export use: the student's average, or its weights where no average is kept."""
        return self.student_weights() if self.ema is None else self.ema.shadow

    def run_step(self, *, stop: bool = False) -> StepReport:
        """One fake-score update and, every ``student.every`` steps, one student update.

        Args:
            stop: This process was asked to stop; the report of every process says so.
        """
        updates_student = (self.step + 1) % self.config.student.every == 0
        figures: dict[str, float] = {}
        microbatches = self._update_fake_score(figures, updates_student=updates_student, stop=stop)
        if updates_student:
            self._update_student(microbatches, figures)
        self._shared = microbatches if self.config.draw.reuse_trajectory and not updates_student else []
        num_anchors = microbatches[0].num_anchors
        asked = figures.pop("stop") > 0
        report = StepReport(self.step, num_anchors, figures, student_updated=updates_student, stop=asked)
        self.step += 1
        return report

    def _update_fake_score(self, figures: dict[str, float], *, updates_student: bool, stop: bool) -> list[_Microbatch]:
        loss = torch.zeros((), device=self.device)
        microbatches = []
        splits = self._rounds(self.world.rank)
        used = updates_student or self.config.draw.reuse_trajectory
        keep_graph = used and self.config.memory.keeps_anchor_graph(len(splits))
        for place, rows in enumerate(splits):
            self._begin(self.roles.fake_score)
            told = self._tell(rows, with_terms=updates_student)
            method = self._methods[self._draws.size(self.step)]
            if self._shared:
                simulated = self._shared[place].simulated
            else:
                simulated = simulate(method, self.roles.student, told.prompts, told.draws, anchor_gradient=keep_graph)
            losses = fake_score_losses(method, self.roles.fake_score, simulated, told.prompts, told.draws)
            share = rows.weight * weighted_mean(losses, self.config.batch)
            self._backward(share)
            loss += share.detach()
            kept = told if len(splits) == 1 else None
            microbatches.append(_Microbatch(rows, told.draws.num_anchors, simulated, kept))
        asked = torch.tensor(float(stop), device=self.device)
        self._apply("fake_score", self.fake_optimiser, {"loss/fake_score": loss, "stop": asked}, figures, microbatches)
        self._align("fake_score", self.fake_optimiser.updates)
        return microbatches

    def _update_student(self, microbatches: list[_Microbatch], figures: dict[str, float]) -> None:
        weights = self.config.terms.weights(update=self.student_updates)
        shares = {name: torch.zeros((), device=self.device) for name in weights}
        seen: dict[str, Tensor] = {}
        for micro in microbatches:
            views: dict[str, Views] = {}
            told = micro.told or self._tell(micro.rows, with_terms=True)
            # graph by graph: one is alive at a time, and a weight's gradients are whole until that one has reached it
            for graph in self.config.terms.graphs(own_anchors=self._draws.own_anchors):
                self._begin(self.roles.teacher, self.roles.fake_score)
                losses = student_losses(
                    self._methods[self._draws.size(self.step)],
                    student=self.roles.student,
                    teacher=self.roles.teacher,
                    fake_score=self.roles.fake_score,
                    guided_teacher=self.roles.teacher.guided,
                    simulated=micro.simulated,
                    prompts=told.prompts,
                    draws=told.draws,
                    only=graph,
                    on_views=None if self.config.health is None else views.update,
                )
                means = {
                    name: micro.rows.weight * weighted_mean(loss, self.config.batch) for name, loss in losses.items()
                }
                self._backward(torch.stack([weights[name] * means[name] for name in graph]).sum())
                for name, mean in means.items():
                    shares[name] += mean.detach()
            if self.config.health is not None:
                self._take_note(seen, micro.rows.weight, views)
        measured = {f"loss/{name}": share for name, share in shares.items()}
        health = {}
        if seen:  # a sum of its own: in a longer one the losses may be added in another order
            totals = dict(zip(seen, self.world.total(torch.stack(list(seen.values()))).unbind(), strict=True))
            health = {f"health/{name}": figure for name, figure in view_figures(totals).items()}
        self._apply("student", self.student_optimiser, measured, figures, microbatches, beside=health)
        self._align("student", self.student_optimiser.updates)
        if self.ema is not None:
            self.ema.update(self.student_weights(), update=self.student_optimiser.updates)

    def _take_note(self, seen: dict[str, Tensor], weight: float, views: Mapping[str, Views]) -> None:
        """Add what some rows show of the run's health."""
        terms = self.config.terms.active()
        for name, value in view_sums(terms, {name: views[name] for name in terms}).items():
            seen[name] = seen.get(name, torch.zeros_like(value)) + weight * value

    def _begin(self, *next_asked: Role) -> None:
        """Let networks that are asked soon gather weights while the student computes; its own are there already."""
        student = self.roles.student.network
        for network in dict.fromkeys(role.network for role in next_asked if role.network is not student):
            begin_gathering(network)

    def _backward(self, share: Tensor) -> None:
        # spread networks average gradients over the processes; each process has its share of a sum
        (self.world.size * share).backward()  # type: ignore[no-untyped-call]

    def _rounds(self, rank: int) -> list[Round]:
        microbatch, group = self.config.memory.microbatch, self.config.terms.group
        return rounds(self.config.batch, rank=rank, size=self.world.size, microbatch=microbatch, group=group)

    def _tell(self, rows: Round, *, with_terms: bool) -> _Told:
        start = self._draws.simulation(self.step) * self.config.batch
        indices = [prompt_index(self.config.seed, start + j, len(self.embeddings)) for j in rows.own]
        told = self.adapter.without_padding(self.embeddings.batch(indices), self.embeddings.null)
        cond, null_cond = (part.to(self.device) for part in told)
        draws = self.draw(self.step, rows, with_terms).to(self.device)
        return _Told(self.adapter.prompt_batch(cond, null_cond.expand(len(indices))), draws)

    def _apply(
        self,
        role: str,
        optimiser: RoleOptimiser,
        shares: Mapping[str, Tensor],
        figures: dict[str, float],
        microbatches: Sequence[_Microbatch],
        *,
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Clip, check and move one role; the only host read of its update, and the only sum of its losses."""
        totals = self.world.total(torch.stack(list(shares.values())))
        measured = dict(zip(shares, totals.unbind(), strict=True))
        measured[f"grad_norm/{role}"] = optimiser.clip().to(self.device)  # offloaded gradients have it on the CPU
        settle(getattr(self.roles, role).network)
        try:
            figures |= read_finite(measured, role=role.replace("_", " "), step=self.step, beside=beside)
        except NonFiniteError:
            if optimiser.updates == 0:
                told = [micro.told or self._tell(micro.rows, with_terms=False) for micro in microbatches]
                asked = [(each.prompts, each.draws.initial_noise) for each in told]
                blame_inputs(self.roles.teacher, asked, self.world)
            raise
        figures[f"lr/{role}"] = optimiser.lr
        optimiser.update()

    def _align(self, after: str, updates: int) -> None:
        alignment = self.config.fake_score.align
        if alignment is None or alignment.after != after or updates % alignment.every:
            return
        settle(self.roles.fake_score.network)
        settle(self.roles.student.network)
        fake, student = self.config.fake_score.weights, self.config.student.weights
        if isinstance(fake, FullWeights) and isinstance(student, LoraWeights):
            align_to_merged(self.fake_optimiser.parameters, self.roles.student, student, decay=alignment.decay)
        else:
            align(self.fake_optimiser.parameters, self.student_weights(), decay=alignment.decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides its configuration: trained weights, averages, optimisers, counters.

        The tensors are the run's own, spread over the processes; loading into them is most of a resume.
        """
        state: dict[str, Any] = {"progress": {"step": self.step}}
        for role, optimiser in self._trained().items():
            state[role] = {name: parameter.detach() for name, parameter in optimiser.parameters.items()}
            state[f"{role}_optimiser"] = {**optimiser.moments(), "steps": optimiser.steps()}
            state["progress"][f"{role}_updates"] = optimiser.updates
        if self.ema is not None:
            state["ema"] = dict(self.ema.shadow)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict` made and that was loaded in place."""
        progress = state["progress"]
        for role, optimiser in self._trained().items():
            optimiser.resume_at(progress[f"{role}_updates"], state[f"{role}_optimiser"]["steps"])
        self.step = progress["step"]

    def _trained(self) -> dict[str, RoleOptimiser]:
        return {"student": self.student_optimiser, "fake_score": self.fake_optimiser}
