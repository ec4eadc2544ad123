"""A velocity network small enough to train in a test, as a plain callable with the calls it received."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.core.schedules import RandomLengthSchedule
from fewstep.core.sigmas import SigmaRange, Uniform
from fewstep.methods.cdm import Method
from fewstep.methods.draws import Draws, Streams
from fewstep.methods.terms import CfgAugmentation, ContinuousAlignment, DistributionMatching, Terms

RELEASED = Terms(ca=CfgAugmentation(scale=2.0), dm=DistributionMatching(), cdm=ContinuousAlignment())


class ToyVelocity(nn.Module):
    """An MLP on (x_sigma, features of sigma, condition); counts the calls and samples it answers."""

    def __init__(self, *, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(2 + 5 + 3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
            )
        self.calls: list[int] = []

    def forward(self, point: NoisyLatent, cond: Conditioning) -> Tensor:
        self.calls.append(len(point.sigma))
        s = point.sigma[:, None]
        waves = [s, (3 * s).sin(), (3 * s).cos(), (9 * s).sin(), (9 * s).cos()]
        velocity: Tensor = self.layers(torch.cat([point.x_sigma, *waves, cond.tensors["label"]], dim=1))
        return velocity

    def twin(self) -> "ToyVelocity":
        """A copy with the same weights."""
        return copy.deepcopy(self)


def labels(classes: list[int]) -> Conditioning:
    """One-hot conditions; class 2 is the unconditional branch."""
    return Conditioning({"label": torch.eye(3)[classes]})


def method(terms: Terms = RELEASED, **changes: object) -> Method:
    settings: dict[str, object] = {
        "schedule": RandomLengthSchedule(),
        "terms": terms,
        "sigma_range": SigmaRange(),
        "fake_sigma": Uniform(),
        "fake_target": "anchor",
        "to_sigma": lambda level: level,
    }
    return Method(**(settings | changes))  # type: ignore[arg-type]


def draws(
    of: Method,
    *,
    step: int = 0,
    batch: int = 6,
    seed: int = 0,
    student: bool = True,
    own_anchors: Sequence[str] = (),
    first_anchor: int = 0,
    renoises: bool = False,
) -> Draws:
    return Draws.for_step(
        Streams(seed),
        step,
        schedule=of.schedule,
        latent_shape=(2,),
        positions=range(batch),
        concurrent=range(batch),
        terms=of.terms if student else None,
        own_anchors=own_anchors,
        first_anchor=first_anchor,
        renoises=renoises,
    )


def unguided(point: NoisyLatent, prompts: PromptBatch, guidance_scale: float) -> Tensor:
    """For losses that ask no guided teacher."""
    raise AssertionError("no term here asks the guided teacher")
