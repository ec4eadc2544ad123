"""The run's health while it trains: figures of every student update and of a few pictures, and what an alarm leads to.

Every process looks at the same figures and comes to the same judgement; the main one tells it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.data.embeddings import EmbeddingCache
from fewstep.distributed.sharding import settle
from fewstep.errors import CheckpointError, UnhealthyError
from fewstep.files import UnreadableError, read_json, write_json
from fewstep.health.guard import Alarm, Guard, GuardState
from fewstep.health.latents import LatentStatistics, latent_figures
from fewstep.health.settings import HealthConfig, ProbeConfig, Rewind, Warn
from fewstep.roles.role import Role
from fewstep.runs.checkpoint import load_checkpoint, stored_about
from fewstep.runs.folder import RunFolder
from fewstep.runs.places import HEALTHY, completed_steps, pointed_to
from fewstep.runs.saving import drop_later_checkpoints
from fewstep.sampling.sampler import teacher_sigmas
from fewstep.section import Section
from fewstep.training.report import Reporter
from fewstep.training.trainer import StepReport, Trainer
from fewstep.training.watching import RoleSampler, due, spread_out

_PREFIX = "health/"


class _Rewound(Section):
    """One time that a run went back; ``rewinds.json`` lists them."""

    signal: str
    from_step: int
    to_step: int
    lr_factor: float


class Guarding:
    """Judges a run update by update, and goes back or stops as its recipe says.

    Args:
        config: The resolved recipe.
        health: Its section.
        folder: Of the run.
        probe: Draws pictures, where the recipe asks for them.
        console: Where warnings are told.
    """

    def __init__(
        self, config: RunConfig, health: HealthConfig, folder: RunFolder, probe: "Probe | None", console: Console
    ) -> None:
        self.health = health
        self.folder = folder
        self.probe = probe
        self.console = console
        self.guard = Guard(health, warmup=max(config.student.warmup, config.fake_score.warmup // config.student.every))

    @property
    def keeps_this(self) -> bool:
        """Whether a checkpoint written now is one to go back to."""
        return isinstance(self.health.action, Rewind) and self.guard.healthy

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of the run's health."""
        return {"healthy": self.guard.healthy, "firing": self.guard.firing, **self.guard.state.model_dump(mode="json")}

    def resume(self, trainer: Trainer, checkpoint: Path | None) -> None:
        """Go on as the run did at a checkpoint; every process of the run has to call it."""
        self.guard.state = trainer.world.from_main(lambda: stored_health(checkpoint))
        rewinds = self._rewinds(trainer)
        trainer.lower_rates(rewinds[-1].lr_factor if rewinds else 1.0)

    def look(self, trainer: Trainer, report: StepReport, reporter: Reporter | None) -> Alarm | None:
        """Judge a student update; every process of the run has to call it.

        Returns:
            An alarm that the run must not go on with, or None; one that fired before a resume is still there.
        """
        updates = trainer.student_updates
        figures = dict(report.figures)
        if self.probe is not None and due(updates, self.probe.config.every):
            drawn = {f"{_PREFIX}{name}": value for name, value in self.probe.figures(trainer).items()}
            figures |= drawn
            if reporter is not None:
                reporter.note(report.step, drawn)
        alarms = self.guard.look({name.removeprefix(_PREFIX): v for name, v in figures.items()}, update=updates)
        for alarm in alarms:
            self.console.print(f"Warning: {alarm.message}", style="yellow", highlight=False, soft_wrap=True)
        if alarms and reporter is not None:
            reporter.note(report.step, {f"{_PREFIX}fires/{alarm.name}": 1.0 for alarm in alarms})
        if isinstance(self.health.action, Warn) or not self.guard.firing:
            return None
        return self.guard.alarm(self.guard.firing[0], update=updates)

    def goal(self, trainer: Trainer) -> Path | None:
        """The checkpoint that an alarm leads back to; None where the run has to stop. Every process has to call it."""
        action = self.health.action
        if not isinstance(action, Rewind) or len(self._rewinds(trainer)) >= action.most:
            return None
        return trainer.world.from_main(lambda: pointed_to(self.folder.checkpoints / HEALTHY))

    def stopped(self, trainer: Trainer, alarm: Alarm) -> UnhealthyError:
        """What a run that was saved and stops is told; every process has to call it."""
        times = len(self._rewinds(trainer))
        where = f"The run was saved at step {trainer.step} and stopped"
        if times:
            where += f" after going back {'once' if times == 1 else f'{times} times'}"
        elif isinstance(self.health.action, Rewind):
            where += ", without a healthy checkpoint to go back to"
        return UnhealthyError(
            f"{where}. {alarm.message} Start a new run so, or go on as it is with --resume and health.action.kind=warn."
        )

    def go_back(self, trainer: Trainer, alarm: Alarm, goal: Path, reporter: Reporter | None) -> None:
        """Go on from a healthy checkpoint with lower rates; every process of the run has to call it."""
        world, before, last = trainer.world, self._rewinds(trainer), trainer.step
        assert isinstance(self.health.action, Rewind)
        factor = (before[-1].lr_factor if before else 1.0) * self.health.action.lower_lr
        rewound = _Rewound(signal=alarm.name, from_step=last, to_step=completed_steps(goal), lr_factor=factor)

        def forget() -> None:  # the note first: a run that is killed here goes on from where it was, with lower rates
            _write_rewinds(self.folder.path, [*before, rewound])
            drop_later_checkpoints(self.folder.checkpoints, goal)

        world.from_main(forget)
        if reporter is not None:  # before the load, which takes long: a run that is killed in it has told of this
            reporter.go_back(rewound.to_step)
            told = {"rewound_from": float(last), "lr_factor": factor, f"fires/{alarm.name}": 1.0}
            reporter.note(rewound.to_step - 1, {f"{_PREFIX}{name}": value for name, value in told.items()})
        _load(trainer, goal)
        self.resume(trainer, goal)
        self.console.print(
            f"Went back from step {last} to {trainer.step}, the last healthy checkpoint, because of "
            f"health/{alarm.name}; from here the learning rates are {factor:g} times the recipe's "
            f"({len(before) + 1} of {self.health.action.most}).",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )

    def _rewinds(self, trainer: Trainer) -> list[_Rewound]:
        return trainer.world.from_main(lambda: _read_rewinds(self.folder.path))


class Probe:
    """Draws the student's pictures of a few prompts and seeds, as latents, beside the teacher's of the same.

    Args:
        config: The resolved recipe.
        probe: Its section.
        adapter: The backbone.
        prompts: The run's prompts, of which some are taken.
        embeddings: Theirs.
        device: Where the networks compute.
    """

    def __init__(
        self,
        config: RunConfig,
        probe: ProbeConfig,
        adapter: ModelAdapter,
        prompts: Sequence[str],
        embeddings: EmbeddingCache,
        device: torch.device,
    ) -> None:
        self.run = config
        self.config = probe
        self.sampler = RoleSampler(adapter, None, embeddings.null, device)
        chosen = [index for index in spread_out(len(prompts), probe.prompts) for _ in range(probe.seeds)]
        texts, seeds = [prompts[index] for index in chosen], list(range(probe.seeds)) * (len(chosen) // probe.seeds)
        self.cond = embeddings.batch(chosen)
        self.noise = self.sampler.noise(texts, seeds)
        self.step_noise = self.sampler.step_noise(texts, seeds, config)
        self._teacher: LatentStatistics | None = None

    def figures(self, trainer: Trainer) -> dict[str, float]:
        """Figures of the student as it is; the teacher draws once. Every process of the run has to call it."""
        sampling, adapter, roles = self.run.sampling, self.sampler.adapter, trainer.roles
        rows = trainer.rows_at_once
        if self._teacher is None:
            sigmas = teacher_sigmas(adapter, sampling.teacher_steps)
            # guided, a call has two rows for each picture
            drawn = self._draw(roles.teacher, sigmas, max(1, rows // 2), guidance_scale=sampling.teacher_guidance_scale)
            self._teacher = LatentStatistics.of(drawn, seeds=self.config.seeds)
        settle(roles.student.network)
        drawn = self._draw(roles.student, adapter.to_sigma(torch.tensor(sampling.levels)), rows, self.step_noise)
        settle(roles.student.network)
        found = latent_figures(drawn, self._teacher, seeds=self.config.seeds)
        return trainer.world.from_main(lambda: {name: value.item() for name, value in found.items()})

    def _draw(
        self,
        role: Role,
        sigmas: Tensor,
        rows: int,
        step_noise: Tensor | None = None,
        guidance_scale: float | None = None,
    ) -> Tensor:
        parts = [slice(start, start + rows) for start in range(0, len(self.noise), rows)]
        drawn = [
            self.sampler.latents(
                role,
                self.cond.rows(part),
                self.noise[part],
                sigmas,
                guidance_scale,
                None if step_noise is None else step_noise[part],
            ).cpu()
            for part in parts
        ]
        return torch.cat(drawn)


def stored_health(checkpoint: Path | None) -> GuardState:
    """What a checkpoint says of its run's health; nothing where there is none, or was not looked at.

    Raises:
        CheckpointError: It says something else there.
    """
    known = {} if checkpoint is None else stored_about(checkpoint).get("health", {})
    try:
        return GuardState.model_validate({"watches": known.get("watches", {})})
    except (ValidationError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint} says of its run's health what this version of fewstep does not know. "
            "Go on with --resume and health=null, or with the version that wrote it."
        ) from error


def _load(trainer: Trainer, checkpoint: Path) -> None:
    """Fill a trainer that has trained with the state of a checkpoint."""
    for role in (trainer.roles.student, trainer.roles.fake_score):
        settle(role.network)
    state = trainer.state_dict()
    load_checkpoint(checkpoint, state, trainer.world)
    trainer.load_state_dict(state)


def _read_rewinds(run: Path) -> list[_Rewound]:
    path = run / "rewinds.json"
    if not path.exists():
        return []
    try:
        return read_json(path, list[_Rewound])
    except UnreadableError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); delete it, and the run goes on with the learning rates of its recipe."
        ) from error


def _write_rewinds(run: Path, rewinds: Sequence[_Rewound]) -> None:
    write_json(run / "rewinds.json", [each.model_dump(mode="json") for each in rewinds])
