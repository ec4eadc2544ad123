"""The student's loss terms: where the student is asked, where it is looked at, what is asked of it."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from fewstep.bounds import Batch, CountOrNone, GuidanceScale, Rate, Scale, Weight
from fewstep.core import objectives
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import Schedule
from fewstep.core.sigmas import SigmaLaw, Uniform, UniformBelowQuery
from fewstep.methods.companions import Companion, DiversityPreservation, IntraSegmentGuidance
from fewstep.methods.simulation import SimulatedX0, SimulationConfig
from fewstep.section import Section


class _Query(Section):
    """Where the student is asked.

    Attributes:
        needs_noise: Whether it takes noise of its own.
    """

    needs_noise: ClassVar[bool] = False

    @property
    def behind_anchor(self) -> bool:
        """Whether the simulation has to go on behind the sample's anchor."""
        return False


class _AtAnchor(_Query):
    """Ask the student at its anchor of the simulated trajectory, on the path it will take when it samples."""

    at: Literal["anchor"] = "anchor"


class OffTrajectory(_Query):
    """Ask the student where an anchor's own velocity leads at another noise level (CDM's continuous alignment)."""

    at: Literal["off_trajectory"] = "off_trajectory"
    sigma: SigmaLaw = Field(default=Uniform(), discriminator="law")
    of: Literal["anchor", "last_anchor"] = Field(
        default="anchor", description="whose velocity leads there: the sample's anchor, or the last of the schedule"
    )

    @property
    def behind_anchor(self) -> bool:
        return self.of == "last_anchor"


class LastAnchor(_Query):
    """Ask the student at the last anchor of the schedule; needs the whole simulation."""

    at: Literal["last_anchor"] = "last_anchor"

    @property
    def behind_anchor(self) -> bool:
        return True


class FreshNoise(_Query):
    """Ask the student at a clean latent of its simulation, re-noised (Gaussian perturbation)."""

    at: Literal["fresh_noise"] = "fresh_noise"
    sigma: SigmaLaw = Field(default=Uniform(), discriminator="law")
    of: SimulatedX0 = Field(
        default="final", description="x0 that entered the anchor, that leaves it, or the final sample (simulated whole)"
    )
    needs_noise: ClassVar[bool] = True

    @property
    def behind_anchor(self) -> bool:
        return self.of == "final"


_AnyQuery = Annotated[_AtAnchor | OffTrajectory | LastAnchor | FreshNoise, Field(discriminator="at")]


@dataclass(frozen=True)
class Views:
    """What a term looks at, without gradient.

    Attributes:
        x0_student: The student's answer at the term's query.
        probe: Where the frozen networks are asked: that answer with new noise, unless the term probes another x0.
        x0_teacher: The teacher's prediction there.
        guidance: The teacher's direction of guidance there, ``x0_cond - x0_null``; None unless the term asks for it.
        x0_fake: The fake score's prediction there; None unless the term asks for it.
    """

    x0_student: Float[Tensor, "b *latent"]
    probe: NoisyLatent
    x0_teacher: Float[Tensor, "b *latent"]
    guidance: Float[Tensor, "b *latent"] | None
    x0_fake: Float[Tensor, "b *latent"] | None


class Term(Section):
    """A term made of query, probe and direction: its settings, what it has to see, what it asks of the student.

    Installed packages add subclasses of it through the entry-point group ``fewstep.terms``.
    """

    weight: Weight = 1.0
    warmup: CountOrNone = Field(default=0, description="updates of the student until the weight is whole; 0 is at once")
    query: _AnyQuery = _AtAnchor()
    probe: SigmaLaw = Field(default=Uniform(), discriminator="law")
    probe_of: Literal["answer", SimulatedX0, "query"] = Field(
        default="answer",
        description="what the probe re-noises: the student's answer, x0 entering or leaving the anchor, the final "
        "sample; query: the probe is the query itself, and its law is not used",
    )
    floor: Rate = objectives.NORMALISER_FLOOR
    normalise_over: Batch = Field(
        default=1, description="samples of the batch, one after another, that share a normaliser; 1 is each its own"
    )

    @property
    def behind_anchor(self) -> bool:
        """Whether it needs a state of the simulation behind the sample's anchor."""
        return self.query.behind_anchor or self.probe_of == "final"

    @property
    def asks_guidance(self) -> bool:
        """Whether it needs the teacher's direction of guidance, which costs one more of its calls."""
        return False

    @property
    def asks_fake_score(self) -> bool:
        """Whether it needs the fake score's prediction."""
        return False

    @property
    def at_anchor(self) -> bool:
        """Whether it asks where every sample has been asked already."""
        return self.query.at == "anchor"

    @abstractmethod
    def direction(self, views: Views) -> Float[Tensor, "b *latent"]:
        """The change that is asked of ``x0_student``, before the normaliser divides it."""

    def reference(self, views: Views) -> Float[Tensor, "b *latent"]:
        """The prediction that the student's error is measured from."""
        return views.x0_teacher

    def normaliser(self, views: Views) -> Float[Tensor, "b"]:
        """The size of the student's error, by which the direction is divided."""
        return objectives.normaliser(
            self.reference(views), views.x0_student, floor=self.floor, group=self.normalise_over
        )


class CfgAugmentation(Term):
    """`ca`: pull along the teacher's conditional minus unconditional prediction."""

    scale: Scale = Field(default=7.0, description="coefficient of x0_cond - x0_null; not a guidance scale")
    probe: SigmaLaw = Field(default=UniformBelowQuery(), discriminator="law")
    renormalise: Literal["sample", "token"] | None = Field(
        default=None, description="keep the length of the teacher's prediction, of each sample or each token"
    )

    @property
    def asks_guidance(self) -> bool:
        return True

    def direction(self, views: Views) -> Float[Tensor, "b *latent"]:
        assert views.guidance is not None
        direction = objectives.cfg_augmentation(views.guidance, scale=self.scale)
        if self.renormalise is None:
            return direction
        return objectives.renormalised(direction, views.x0_teacher, over=self.renormalise)


class DistributionMatching(Term):
    """`dm` and `cdm`: pull along the teacher's minus the fake score's prediction.

    With ``guidance_scale`` other than 1 the teacher is guided (DMD2), and so is the normaliser.
    """

    guidance_scale: GuidanceScale = Field(default=1.0, description="of the teacher, counted so that 1 is off")

    @property
    def asks_guidance(self) -> bool:
        return self.guidance_scale != 1.0

    @property
    def asks_fake_score(self) -> bool:
        return True

    def direction(self, views: Views) -> Float[Tensor, "b *latent"]:
        assert views.x0_fake is not None
        return objectives.distribution_matching(self.reference(views), views.x0_fake)

    def reference(self, views: Views) -> Float[Tensor, "b *latent"]:
        if views.guidance is None:
            return views.x0_teacher
        return views.x0_teacher + (self.guidance_scale - 1.0) * views.guidance


class ContinuousAlignment(DistributionMatching):
    """`cdm`: distribution matching asked off the trajectory."""

    query: _AnyQuery = OffTrajectory()


class Terms(Section):
    """The terms of the student's loss; an absent term is off. `isg` and `dp` accompany the others.

    A recipe that names terms of installed packages has a subclass with a field for each of them.
    """

    ca: CfgAugmentation | None = None
    dm: DistributionMatching | None = None
    cdm: ContinuousAlignment | None = None
    isg: IntraSegmentGuidance | None = None
    dp: DiversityPreservation | None = None

    @model_validator(mode="after")
    def _at_least_one(self) -> "Terms":
        if not self.active():
            raise ValueError("terms names no loss; switch on at least one of ca, dm, cdm")
        return self

    @model_validator(mode="after")
    def _of_their_own_classes(self) -> "Terms":
        for name, field in type(self).model_fields.items():
            term, declared = getattr(self, name), get_args(field.annotation)[0]
            if term is not None and type(term) is not declared:
                # its own settings would train and be lost from those of the run
                raise ValueError(
                    f"terms.{name} is a {type(term).__name__}, but only a {declared.__name__} can be written down and "
                    "read again under this name; give another kind of term a name by an entry point of fewstep.terms"
                )
        return self

    def active(self) -> dict[str, Term]:
        """The terms made of query, probe and direction that are on, by name, in a fixed order."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: term for name, term in named if isinstance(term, Term)}

    def companions(self) -> dict[str, Companion]:
        """The losses with network calls of their own that are on, by name."""
        named: dict[str, Companion | None] = {"isg": self.isg, "dp": self.dp}
        return {name: companion for name, companion in named.items() if companion is not None}

    def weights(self, *, update: int | None = None) -> dict[str, float]:
        """The weight of every loss, by name: of the student's ``update``-th update from 0, or behind every warm-up."""
        weights = {
            name: term.weight * (1.0 if update is None else objectives.warmed_up(update, term.warmup))
            for name, term in self.active().items()
        }
        return weights | {name: companion.weight for name, companion in self.companions().items()}

    @property
    def group(self) -> int:
        """Samples of the batch that stay together, whichever way it is split: whole groups of every term."""
        return math.lcm(*(term.normalise_over for term in self.active().values()))

    @property
    def first_anchor(self) -> int:
        """The smallest index that an anchor may have: 1 where the first step belongs to `dp`."""
        return 0 if self.dp is None else 1

    def graphs(self, *, own_anchors: bool = False) -> list[tuple[str, ...]]:
        """The losses by the student's forward they come from; those at one anchor share the first, which is there.

        Args:
            own_anchors: Each term has anchors of its own, so that nothing is shared.
        """
        shared = tuple(name for name, term in self.active().items() if term.at_anchor and not own_anchors)
        alone: list[tuple[str, ...]] = [(name,) for name in reversed(self.weights()) if name not in shared]
        return [shared, *alone] if shared else alone

    def noisy_queries(self) -> list[str]:
        """The terms whose query takes noise of its own."""
        return [name for name, term in self.active().items() if term.query.needs_noise]

    def needs_whole_simulation(self) -> bool:
        """Whether a term asks for a state behind the anchor, so that no sample may leave the simulation early."""
        return any(term.behind_anchor for term in self.active().values())

    def simulation_problem(self, simulation: SimulationConfig, schedule: Schedule) -> str | None:
        """Why the terms do not go with this simulation, or None."""
        for name, companion in self.companions().items():
            if simulation.step != "euler":
                return (
                    f"terms.{name} {companion.about}, but simulation.step is {simulation.step}: the student would "
                    f"never make them; set terms.{name}=null or simulation.step=euler"
                )
        if schedule.bounds[0] <= self.first_anchor:
            return (
                f"terms.dp has the first anchor for itself, but a schedule may have no more than {schedule.bounds[0]}; "
                "set schedule.min_steps=2, or fixed levels with a second one"
            )
        return None

    def batch_problem(self, batch: int, microbatch: int | None) -> str | None:
        """Why groups that share a normaliser would be cut, or None."""
        group = self.group
        if batch % group:
            return (
                f"terms.NAME.normalise_over needs whole groups of {group}, but batch is {batch}; set a multiple of it"
            )
        if microbatch is not None and microbatch < group:
            return (
                f"terms.NAME.normalise_over needs groups of {group} together, but memory.microbatch is {microbatch}; "
                f"set memory.microbatch={group} or more"
            )
        return None
