"""The settings of one run. A choice is a type; off is None; what has no default must be stated by the recipe."""

import json
from typing import Any, Literal, get_args

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from fewstep.backbones.protocol import BackboneConfig
from fewstep.bounds import (
    Batch,
    Count,
    CountOrNone,
    Decay,
    DtypeName,
    GuidanceScale,
    Levels,
    Minutes,
    Name,
    Pictures,
    Processes,
    Rate,
    Seed,
    Steps,
    Threads,
    Weight,
)
from fewstep.config.installed_terms import read_terms
from fewstep.config.memory_config import MemoryConfig
from fewstep.config.prompt_sources import PromptSource
from fewstep.core.schedules import FOUR_STEPS, RandomLengthSchedule, Schedule, check_levels
from fewstep.core.sigmas import LogitNormal, SigmaRange, Uniform
from fewstep.health.settings import HealthConfig, Rewind
from fewstep.methods.simulation import SimulationConfig
from fewstep.methods.terms import DistributionMatching, Terms
from fewstep.roles.compilation import records_graphs
from fewstep.roles.weights import (
    FullWeights,
    LoraWeights,
    Start,
    Weights,
    alignment_problem,
    base_problem,
    start_problem,
)
from fewstep.section import Changeable, Section

TrackerName = Literal["tensorboard", "trackio", "wandb"]
"""Where a run's figures may go besides its own folder."""


class OptimiserConfig(Section):
    """AdamW of one role, with a warm-up that does not start at zero: lr * min(1, (k + 1) / warmup) at its update k."""

    weights: Weights = Field(default=FullWeights(), description="what is trained: full, or lora factors")
    lr: Rate
    warmup: CountOrNone = Field(default=100, description="updates of this role")
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="after the warm-up; cosine and linear reach 0 at the end of the budget"
    )
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Rate = 1e-8
    weight_decay: GuidanceScale = 1e-4
    moments: Literal["fp32", "8bit"] = Field(
        default="fp32", description="how the two averages of AdamW are held; 8bit needs fewstep[quantised]"
    )
    clip: Weight | None = Field(default=1.0, description="largest norm of this role's gradient")


class _StudentConfig(OptimiserConfig):
    """The network being distilled."""

    init: Start | None = Field(
        default=None, description="where it starts: {lora: FILE} or {model: FOLDER}; None is the teacher"
    )
    every: Count = Field(default=2, description="updates of fake_score per student update")
    ema: Decay | None = Field(
        default=0.999, description="decay of the averaged weights that are evaluated and exported"
    )


class _Align(Section):
    """Implicit distribution alignment: fake_score <- decay fake_score + (1 - decay) student."""

    decay: Decay = 0.999
    after: Literal["fake_score", "student"] = Field(default="fake_score", description="which role's update it follows")
    every: Count = Field(default=1, description="updates of that role")


class _FakeScoreConfig(OptimiserConfig):
    """The network that follows the student's own distribution."""

    target: Literal["anchor", "entering", "final"] = Field(
        default="anchor",
        description="x0 it regresses on: predicted at the student's anchor, one anchor before, or its final sample",
    )
    # trained where no query stands, so laws that need one are no choice here
    sigma: Uniform | LogitNormal = Field(default=Uniform(), discriminator="law")
    align: _Align | None = _Align()


class _Budget(Changeable):
    """How long to train."""

    student_updates: Count


class _Precision(Section):
    """Dtype of the networks' forwards; master weights, EMA and losses are float32 always."""

    compute: DtypeName = "bf16"
    frozen: Literal["bf16"] | None = Field(
        default=None, description="the teacher, which is the base of factors, between its calls; None is compute"
    )

    @property
    def held(self) -> DtypeName:
        """Of frozen weights between two calls."""
        return self.frozen or self.compute


class DrawConfig(Section):
    """Ways to spend less that change which samples are drawn, not what is learnt from them; as released, all off."""

    reuse_trajectory: bool = Field(
        default=False, description="one simulation per student update: fake_score learns from it with fresh noise"
    )
    anchors: Literal["independent", "stratified"] = Field(
        default="independent", description="stratified: the batch's anchors are spread evenly over the schedule"
    )


class _SamplingConfig(Section):
    """How the student and, for comparison, the teacher draw pictures."""

    levels: Levels = Field(default=FOUR_STEPS, description="the student's noise levels, before the time shift")
    teacher_steps: Steps = 50
    teacher_guidance_scale: GuidanceScale = Field(default=4.5, description="as the teacher's pipeline counts it")

    @field_validator("levels")
    @classmethod
    def _descend(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        check_levels(levels)
        return levels


class _ReportConfig(Changeable):
    """What the run tells about itself."""

    log_every: Count = Field(default=1, description="steps")
    sheet_every: Count | None = Field(default=None, description="student updates between sample sheets")
    sheet_prompts: Pictures = 8
    sheet_seed: Seed = 0
    trackers: tuple[TrackerName, ...] | None = Field(
        default=None,
        max_length=len(get_args(TrackerName)),
        description="tensorboard, trackio, wandb; None is tensorboard where it is installed",
    )
    memory: bool = Field(
        default=False, description="tell predicted and measured peak also without a GPU, where measuring is slow"
    )


class EvaluationConfig(Changeable):
    """Which metrics measure the student during training, how often and on how many pictures."""

    every: Count = Field(description="student updates between measurements")
    metrics: tuple[Name, ...] = Field(
        min_length=1, max_length=100, description="names, as `fewstep evaluate metrics` lists them"
    )
    settings: dict[Name, dict[Name, Any]] = Field(default_factory=dict, description="of the metrics, by name")
    num_prompts: Count = Field(default=16, description="the first of the run's prompts")
    num_seeds: Pictures = Field(default=1, description="pictures per prompt")
    keep_best: Name | None = Field(default=None, description="the figure by which the best student is kept")

    @model_validator(mode="after")
    def _settings_have_their_metric(self) -> "EvaluationConfig":
        for name in self.settings:
            if name not in self.metrics:
                raise ValueError(f"evaluation.settings has the metric {name}, which evaluation.metrics does not name")
        return self


class _CheckpointConfig(Changeable):
    """When the whole state is saved; it is always saved at the end."""

    every: Count | None = Field(default=None, description="student updates")
    keep_last: Count = 2


class _ParallelConfig(Changeable):
    """Where the run computes; changes nothing but rounding."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Threads | None = Field(default=None, description="of the CPU; None leaves torch's choice")
    shard: Processes | None = Field(
        default=None, description="processes that share one copy of the weights; None is all, or what replicate leaves"
    )
    replicate: Processes | None = Field(default=None, description="copies of the weights (HSDP); None is one")
    timeout_minutes: Minutes = Field(
        default=10.0, description="until a process gives up waiting for the others in a step"
    )


class RunConfig(Section):
    """Everything that decides what a run computes. Build it with ``load_recipe``."""

    backbone: SerializeAsAny[BackboneConfig]
    prompts: PromptSource
    schedule: Schedule = Field(default=RandomLengthSchedule(), discriminator="kind")
    terms: SerializeAsAny[Terms]
    sigma_range: SigmaRange = SigmaRange()
    student: _StudentConfig
    fake_score: _FakeScoreConfig
    batch: Batch = Field(description="samples per step, over all processes")
    budget: _Budget
    seed: Seed = 42
    precision: _Precision = _Precision()
    memory: MemoryConfig = MemoryConfig()
    draw: DrawConfig = DrawConfig()
    simulation: SimulationConfig = SimulationConfig()
    sampling: _SamplingConfig = _SamplingConfig()
    report: _ReportConfig = _ReportConfig()
    evaluation: EvaluationConfig | None = Field(default=None, description="metrics while the student trains")
    health: HealthConfig | None = Field(default=HealthConfig(), description="signals that the run goes wrong")
    checkpoint: _CheckpointConfig = _CheckpointConfig()
    parallel: _ParallelConfig = _ParallelConfig()

    @field_validator("backbone", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any) -> Any:
        """Let the backbone's own adapter say which settings it has."""
        if not isinstance(value, dict):
            return value
        return backbone_config_class(value.get("kind")).model_validate_json(json.dumps(value), strict=True)

    @field_validator("terms", mode="before")
    @classmethod
    def _with_terms_of_packages(cls, value: Any) -> Any:
        """Let every installed package say which settings its term has."""
        return read_terms(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _microbatch_fits(self) -> "RunConfig":
        if self.memory.microbatch is not None and self.memory.microbatch > self.batch:
            raise ValueError(
                f"memory.microbatch is {self.memory.microbatch}, more than batch, which is {self.batch}; "
                "it splits the batch, so it must be at most that"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_go_back_to(self) -> "RunConfig":
        if self.health is not None and isinstance(self.health.action, Rewind) and self.checkpoint.every is None:
            raise ValueError(
                "health.action is rewind, but checkpoint.every is null, so that there is no checkpoint to go back to; "
                "set checkpoint.every to so many student updates, or health.action.kind=stop"
            )
        return self

    @model_validator(mode="after")
    def _factors_can_share_their_base(self) -> "RunConfig":
        problem = start_problem(self.student.weights, self.student.init)
        problem = problem or base_problem(self.student.weights, self.fake_score.weights)
        if problem is not None:
            raise ValueError(problem)
        refused = {f"offload.{name} is true": "offloaded" for name, chosen in self.memory.offload if chosen}
        refused |= {f"compiled is {self.memory.compiler}": "compiled"} if self.memory.compiled else {}
        for role, weights in (("student", self.student.weights), ("fake_score", self.fake_score.weights)):
            if refused and isinstance(weights, LoraWeights) and weights.base != "compute":
                setting, done = next(iter(refused.items()))
                raise ValueError(
                    f"{role}.weights.base is {weights.base} and memory.{setting}, but a quantised base "
                    f"is not {done}; choose one of the two"
                )
        return self

    @model_validator(mode="after")
    def _frozen_weights_are_held_in_one_way(self) -> "RunConfig":
        for role, weights in (("student", self.student.weights), ("fake_score", self.fake_score.weights)):
            if self.precision.frozen and isinstance(weights, LoraWeights) and weights.base != "compute":
                raise ValueError(
                    f"precision.frozen is {self.precision.frozen} and {role}.weights.base is {weights.base}, but the "
                    "base is held in one way; choose one of the two"
                )
        return self

    @model_validator(mode="after")
    def _weights_can_be_aligned(self) -> "RunConfig":
        problem = alignment_problem(self.student.weights, self.fake_score.weights)
        if problem is not None and self.fake_score.align is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _watched_blocks_are_not_compiled(self) -> "RunConfig":
        if self.memory.compiled and self.memory.prefetch is not None:
            raise ValueError(
                f"memory.prefetch is {self.memory.prefetch} and memory.compiled is {self.memory.compiler}, but the "
                "order of blocks is learnt by watching them, which would compile each of them twice; choose one of the "
                "two"
            )
        return self

    @model_validator(mode="after")
    def _weights_of_recorded_graphs_stay(self) -> "RunConfig":
        moving = {f"memory.offload.{name}": "true" for name, chosen in self.memory.offload if chosen}
        if self.precision.held != self.precision.compute:
            moving["precision.frozen"] = self.precision.held
        if records_graphs(self.memory.compiled) and moving:
            setting, value = next(iter(moving.items()))
            raise ValueError(
                f"memory.compiled is {self.memory.compiler}, which records CUDA graphs of weights that stay where they "
                f"are, but {setting} is {value}, which brings them for each use; choose one of the two"
            )
        return self

    @model_validator(mode="after")
    def _terms_fit_the_simulation_and_the_batch(self) -> "RunConfig":
        problem = self.terms.simulation_problem(self.simulation, self.schedule)
        problem = problem or self.terms.batch_problem(self.batch, self.memory.microbatch)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _terms_have_their_guidance(self) -> "RunConfig":
        reason = self.backbone.without_guidance()
        guided = {
            name: f"{name}.guidance_scale=1" if isinstance(term, DistributionMatching) else f"{name}=null"
            for name, term in self.terms.active().items()
            if term.asks_guidance
        }
        if not self.backbone.guided:
            companions = self.terms.companions().items()
            guided |= {name: f"{name}.{companion.unguided}" for name, companion in companions if companion.guides}
        if reason is not None and guided:
            name, without = next(iter(guided.items()))
            raise ValueError(
                f"terms.{name} follows the teacher's guidance, but {reason}, or train without it: terms.{without}"
            )
        return self


def backbone_config_class(kind: Any) -> type[BackboneConfig]:
    """The settings that a backbone of this kind has.

    Raises:
        ValueError: ``kind`` is missing.
        ConfigError: No adapter has this kind.
    """
    from fewstep.backbones.registry import adapter_class, backbone_kinds

    if not isinstance(kind, str):
        raise ValueError(f"backbone needs a kind, one of {', '.join(backbone_kinds())}")
    return adapter_class(kind).config_class
