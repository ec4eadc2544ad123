"""Which weights a role trains: all of them, or low-rank factors on a frozen base."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fewstep.backbones.lora_source import LoraSource
from fewstep.bounds import Name, Place, Rank, Scale, Weight
from fewstep.section import Section

Base = Literal["compute", "int8", "nf4"]
"""How the frozen base of low-rank factors is held."""


class FullWeights(Section):
    """Every weight of the network, kept in float32."""

    kind: Literal["full"] = "full"


class LoraWeights(Section):
    """Low-rank factors in float32 on a base that is frozen: ``W + alpha / rank B A``. B starts at zero.

    The base is held once, in the compute precision or in fewer bits, and is the teacher at the same time.
    """

    kind: Literal["lora"] = "lora"
    rank: Rank = 64
    alpha: Weight | None = Field(default=None, description="None is the rank, so that the factor on B A is 1")
    targets: tuple[Name, ...] | None = Field(
        default=None,
        max_length=1000,
        description="ends of module names that take factors; None is the backbone's own list",
    )
    base: Base = Field(
        default="compute", description="the frozen base: in precision.compute, or its blocks in int8 or nf4 (4 bits)"
    )

    @property
    def scaling(self) -> float:
        """The factor on B A."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


Weights = Annotated[FullWeights | LoraWeights, Field(discriminator="kind")]


class StartFromLora(Section):
    """The student starts as the teacher with a LoRA on it, such as one that draws in few steps."""

    kind: Literal["lora"] = "lora"
    lora: Place = Field(min_length=1, description="a safetensors file, a folder that holds one, or a repository id")
    file: Name | None = Field(default=None, description="which file of the folder or repository; None is the only one")
    scale: Scale = 1.0

    @property
    def source(self) -> LoraSource:
        return LoraSource(path=self.lora, file=self.file, scale=self.scale)


class StartFromModel(Section):
    """The student starts as another model of the teacher's architecture; it may be distilled."""

    kind: Literal["model"] = "model"
    model: Place = Field(min_length=1, description="a diffusers folder, a repository id, or one safetensors file")
    revision: Name | None = None


def _named_start(value: Any) -> Any:
    """The kind of a start is told by what it names: ``{lora: FILE}`` or ``{model: FOLDER}``."""
    if not isinstance(value, dict) or "kind" in value:
        return value
    named = [kind for kind in ("lora", "model") if kind in value]
    if len(named) != 1:
        raise ValueError("student.init names a lora or a model, one of them, as in {lora: turbo.safetensors}")
    return {"kind": named[0], **value}


Start = Annotated[Annotated[StartFromLora | StartFromModel, Field(discriminator="kind")], BeforeValidator(_named_start)]


def start_problem(student: FullWeights | LoraWeights, start: StartFromLora | StartFromModel | None) -> str | None:
    """Why a student cannot start there; None when it can."""
    if isinstance(student, LoraWeights) and isinstance(start, StartFromModel):
        return (
            f"student.init.model is {start.model} and student.weights is lora, but factors on the teacher cannot hold "
            "another model's weights; set student.weights={kind: full}, or start from a LoRA"
        )
    return None


def base_problem(student: FullWeights | LoraWeights, fake_score: FullWeights | LoraWeights) -> str | None:
    """Why these two kinds of weights cannot sit on one frozen base; None when they can, or when there is no need."""
    match student, fake_score:
        case LoraWeights(base=ours), LoraWeights(base=theirs) if ours != theirs:
            return (
                f"student.weights.base is {ours} and fake_score.weights.base is {theirs}, but the factors of both sit "
                "on one frozen base; make them equal"
            )
    return None


def alignment_problem(student: FullWeights | LoraWeights, fake_score: FullWeights | LoraWeights) -> str | None:
    """Why implicit distribution alignment cannot average these two kinds of weights; None when it can.

    Factors are averaged one by one, so both need the same rank, scale and targets. A full fake score follows a
    student with factors through base + B A. The other way round there is nothing to average into.
    """
    match student, fake_score:
        case FullWeights(), LoraWeights():
            return (
                "student.weights is full and fake_score.weights is lora: alignment cannot put the student's weights "
                "into factors; train both alike, or set fake_score.align=null"
            )
        case LoraWeights(), LoraWeights() if student != fake_score:
            return (
                f"student.weights ({_told(student)}) and fake_score.weights ({_told(fake_score)}) differ: alignment "
                "averages their factors one by one; make them equal, or set fake_score.align=null"
            )
    return None


def _told(weights: LoraWeights) -> str:
    targets = "the backbone's targets" if weights.targets is None else ", ".join(weights.targets)
    return f"rank {weights.rank}, scaling {weights.scaling:g}, {targets}"
