"""The student's loss terms as data: where the student is asked, where it is looked at, what is asked of it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fewstep.bounds import GuidanceScale, Levels, Rate, Scale, Share, Weight
from fewstep.core.objectives import NORMALISER_FLOOR
from fewstep.core.schedules import FOUR_STEPS, check_levels
from fewstep.core.sigmas import SigmaLaw, Uniform, UniformBelowQuery
from fewstep.section import Section


class _Query(Section):
    """Where the student is asked.

    Attributes:
        behind_anchor: Whether the simulation has to go on behind the sample's anchor.
        needs_noise: Whether it takes noise of its own.
    """

    behind_anchor: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = False


class AtAnchor(_Query):
    """Ask the student at its anchor of the simulated trajectory, on the path it will take when it samples."""

    at: Literal["anchor"] = "anchor"


class OffTrajectory(_Query):
    """Ask the student where the anchor's own velocity leads at another noise level (CDM's continuous alignment)."""

    at: Literal["off_trajectory"] = "off_trajectory"
    sigma: SigmaLaw = Field(default=Uniform(), discriminator="law")


class LastAnchor(_Query):
    """Ask the student at the last anchor of the schedule; needs the whole simulation."""

    at: Literal["last_anchor"] = "last_anchor"
    behind_anchor: ClassVar[bool] = True


class FreshNoise(_Query):
    """Ask the student at its final sample, re-noised (Gaussian perturbation); needs the whole simulation."""

    at: Literal["fresh_noise"] = "fresh_noise"
    sigma: SigmaLaw = Field(default=Uniform(), discriminator="law")
    behind_anchor: ClassVar[bool] = True
    needs_noise: ClassVar[bool] = True


Query = Annotated[AtAnchor | OffTrajectory | LastAnchor | FreshNoise, Field(discriminator="at")]


class CfgAugmentation(Section):
    """`ca`: pull along the teacher's conditional minus unconditional prediction."""

    asks_guidance: ClassVar[bool] = True
    """Whether it needs the teacher's direction of guidance."""
    asks_fake_score: ClassVar[bool] = False

    weight: Weight = 1.0
    scale: Scale = Field(default=7.0, description="coefficient of x0_cond - x0_null; not a guidance scale")
    query: Query = AtAnchor()
    probe: SigmaLaw = Field(default=UniformBelowQuery(), discriminator="law")
    floor: Rate = NORMALISER_FLOOR

    @property
    def at_anchor(self) -> bool:
        """Whether it asks where every sample has been asked already."""
        return self.query.at == "anchor"


class DistributionMatching(Section):
    """`dm` and `cdm`: pull along the teacher's minus the fake score's prediction.

    With ``guidance_scale`` other than 1 the teacher is guided (DMD2), and so is the normaliser.
    """

    asks_fake_score: ClassVar[bool] = True

    weight: Weight = 1.0
    guidance_scale: GuidanceScale = Field(default=1.0, description="of the teacher, counted so that 1 is off")
    query: Query = AtAnchor()
    probe: SigmaLaw = Field(default=Uniform(), discriminator="law")
    floor: Rate = NORMALISER_FLOOR

    @property
    def asks_guidance(self) -> bool:
        """Whether it needs the teacher's direction of guidance."""
        return self.guidance_scale != 1.0

    @property
    def at_anchor(self) -> bool:
        """Whether it asks where every sample has been asked already."""
        return self.query.at == "anchor"


class ContinuousAlignment(DistributionMatching):
    """`cdm`: distribution matching asked off the trajectory."""

    query: Query = OffTrajectory()


Term = CfgAugmentation | DistributionMatching
"""A term made of query, probe and direction."""


class GuidanceRange(Section):
    """A guidance scale drawn uniformly once per step, counted so that 1 is off; one value when both ends are equal."""

    low: GuidanceScale = 5.0
    high: GuidanceScale = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> "GuidanceRange":
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high, which is {self.high}")
        return self


class IntraSegmentGuidance(Section):
    """`isg`: a step across a segment of its own fixed grid must end where a guided detour ends (SenseFlow)."""

    weight: Weight = 0.5
    levels: Levels = Field(default=FOUR_STEPS, description="the grid, before the time shift")
    margin: Share = Field(default=0.05, description="least distance of the detour from a segment's ends, in sigma")
    guidance: GuidanceRange = GuidanceRange()

    @field_validator("levels")
    @classmethod
    def _descend(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        check_levels(levels)
        return levels


class Terms(Section):
    """The terms of the student's loss; an absent term is off. `isg` accompanies the others."""

    ca: CfgAugmentation | None = None
    dm: DistributionMatching | None = None
    cdm: ContinuousAlignment | None = None
    isg: IntraSegmentGuidance | None = None

    @model_validator(mode="after")
    def _at_least_one(self) -> "Terms":
        if not self.active():
            raise ValueError("terms names no loss; switch on at least one of ca, dm, cdm")
        return self

    def active(self) -> dict[str, Term]:
        """The terms made of query, probe and direction that are on, by name, in a fixed order."""
        named = {"ca": self.ca, "dm": self.dm, "cdm": self.cdm}
        return {name: term for name, term in named.items() if term is not None}

    def weights(self) -> dict[str, float]:
        """The weight of every loss, by name."""
        weights = {name: term.weight for name, term in self.active().items()}
        return weights if self.isg is None else {**weights, "isg": self.isg.weight}

    def graphs(self) -> list[tuple[str, ...]]:
        """The losses by the student's forward they come from, the latest one first; those at the anchor share one."""
        shared = tuple(name for name, term in self.active().items() if term.at_anchor)
        alone: list[tuple[str, ...]] = [(name,) for name in reversed(self.weights()) if name not in shared]
        return [*alone, shared] if shared else alone

    def noisy_queries(self) -> list[str]:
        """The terms whose query takes noise of its own."""
        return [name for name, term in self.active().items() if term.query.needs_noise]

    def needs_whole_simulation(self) -> bool:
        """Whether a term asks for a state behind the anchor, so that no sample may leave the simulation early."""
        return any(term.query.behind_anchor for term in self.active().values())
