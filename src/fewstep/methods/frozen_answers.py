"""What the frozen networks say at the probes: nothing is asked twice, and one call per network serves all terms."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.conditioning import Conditioning, PromptBatch
from fewstep.core.points import NoisyLatent
from fewstep.methods.simulation import Velocity
from fewstep.methods.terms import Term, Views


@torch.no_grad()
def ask_frozen(
    terms: Mapping[str, Term],
    x0_student: Mapping[str, Float[Tensor, "b *latent"]],
    probes: Mapping[str, NoisyLatent],
    *,
    teacher: Velocity,
    fake_score: Velocity,
    prompts: PromptBatch,
    batched: bool,
) -> dict[str, Views]:
    """Ask the frozen networks at every term's probe.

    Args:
        terms: The active terms by name.
        x0_student: The student's answer to each term, detached.
        probes: Where each term looks.
        teacher: Asked by every term, twice more where the term needs the direction of guidance.
        fake_score: Asked by the terms that match distributions.
        prompts: What each network is told.
        batched: One call per network for all probes, which needs memory, instead of one call per probe.
    """
    of_teacher = _Questions([(name, prompts.teacher) for name in terms])
    for name in (name for name, term in terms.items() if term.asks_guidance):
        of_teacher.add(name, prompts.positive)
        of_teacher.add(name, prompts.negative)
    of_fake = _Questions([(name, prompts.student) for name, term in terms.items() if term.asks_fake_score])
    of_teacher.ask(teacher, probes, batched=batched)
    of_fake.ask(fake_score, probes, batched=batched)

    def views(name: str, term: Term) -> Views:
        guidance = None
        if term.asks_guidance:
            positive, negative = of_teacher.x0(name, prompts.positive), of_teacher.x0(name, prompts.negative)
            guidance = prompts.contrast * (positive - negative)
        x0_fake = of_fake.x0(name, prompts.student) if term.asks_fake_score else None
        x0_teacher = of_teacher.x0(name, prompts.teacher)
        return Views(x0_student[name], probes[name], x0_teacher, guidance, x0_fake)

    return {name: views(name, term) for name, term in terms.items()}


class _Questions:
    """What one frozen network is asked: at which terms' probes, about which prompts; nothing is asked twice."""

    def __init__(self, asked: Sequence[tuple[str, Conditioning]]) -> None:
        self._asked = list(asked)
        self._answers: list[Float[Tensor, "b *latent"]] = []

    def add(self, name: str, cond: Conditioning) -> None:
        if self._find(name, cond) is None:
            self._asked.append((name, cond))

    def ask(self, network: Velocity, probes: Mapping[str, NoisyLatent], *, batched: bool) -> None:
        points = [probes[name] for name, _ in self._asked]
        if not batched or len(points) < 2:
            pairs = zip(points, self._asked, strict=True)
            self._answers = [point.x0(network(point, cond)) for point, (_, cond) in pairs]
            return
        together = NoisyLatent(
            torch.cat([point.x_sigma for point in points]), torch.cat([point.sigma for point in points])
        )
        velocity = network(together, Conditioning.cat([cond for _, cond in self._asked]))
        self._answers = list(together.x0(velocity).chunk(len(points)))

    def x0(self, name: str, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        found = self._find(name, cond)
        assert found is not None
        return self._answers[found]

    def _find(self, name: str, cond: Conditioning) -> int | None:
        matches = (i for i, (other, told) in enumerate(self._asked) if other == name and told is cond)
        return next(matches, None)
