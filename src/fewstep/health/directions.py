"""What a student update shows of its health without a further network call: figures of the terms' own views.

Sums over samples come first, because the samples of a batch are spread over rounds and processes; figures are made of
the totals. All in scaled latent units, float32; inner products and squares are means over the latent axes.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.methods.terms import Term, Views

# the two terms whose directions pull at the same answer: guidance, and what holds it back
_GUIDING, _HOLDING = "ca", "dm"


def view_sums(terms: Mapping[str, Term], views: Mapping[str, Views]) -> dict[str, Float[Tensor, ""]]:
    """Sums over some samples, by names and in an order that the terms decide; :func:`view_figures` takes their totals.

    Args:
        terms: The active terms by name.
        views: What each of them looked at.
    """
    directions = {name: term.direction(views[name]).float() for name, term in terms.items()}
    answers = next(iter(views.values())).x0_student
    sums = {"rows": torch.full((), float(len(answers)), device=answers.device)}
    sums |= {f"square/{name}": _inner(direction, direction).sum() for name, direction in directions.items()}
    sums |= {
        # compared as it was clamped, in the normaliser's own precision
        f"floored/{name}": (values <= torch.full_like(values, term.floor)).float().sum()
        for name, term in terms.items()
        for values in [term.normaliser(views[name])]
    }
    if _GUIDING in views and _HOLDING in views and _same_answer(views[_GUIDING], views[_HOLDING]):
        sums["cosine"] = _cosine(directions[_GUIDING], directions[_HOLDING]).sum()
    of_fake = next((seen for seen in views.values() if seen.x0_fake is not None), None)
    if of_fake is not None:
        assert of_fake.x0_fake is not None
        gone = of_fake.x0_fake.float() - of_fake.x0_teacher.float()
        to_go = of_fake.x0_student.float() - of_fake.x0_teacher.float()
        sums |= {"gone": _inner(gone, gone).sum(), "to_go": _inner(gone, to_go).sum()}
    return sums


def view_figures(totals: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
    """Figures of an update, from the sums over its whole batch.

        norm/TERM     = sqrt(mean |direction|^2)
        dm_to_ca      = norm/dm / norm/ca
        cosine        = mean over samples of <ca, dm> / (|ca| |dm|), at the same answer only
        floored       = share of normalisers at their floor, over samples and terms
        fake_distance = sqrt(mean |x0_fake - x0_teacher|^2)
        fake_lag      = mean <x0_fake - x0_teacher, x0_student - x0_teacher> / fake_distance^2 - 1
                                                                                        [eq:health-fake-lag]

    A fake score that is exact predicts the mean of the student's answers given the probe, so that its error is
    orthogonal to every function of the probe, ``x0_fake - x0_teacher`` among them: then ``fake_lag`` is 0, whatever
    the probe has hidden. One that has gone only the part a of the way from the teacher to the student has 1/a - 1.
    """
    rows = totals["rows"]
    terms = [name.removeprefix("square/") for name in totals if name.startswith("square/")]
    figures = {f"norm/{name}": (totals[f"square/{name}"] / rows).sqrt() for name in terms}
    if _GUIDING in terms and _HOLDING in terms:
        figures["dm_to_ca"] = _ratio(figures[f"norm/{_HOLDING}"], figures[f"norm/{_GUIDING}"])
    if "cosine" in totals:
        figures["cosine"] = totals["cosine"] / rows
    figures["floored"] = torch.stack([totals[f"floored/{name}"] for name in terms]).sum() / (rows * len(terms))
    if "gone" in totals:
        figures["fake_distance"] = (totals["gone"] / rows).sqrt()
        figures["fake_lag"] = torch.where(totals["gone"] > 0, _ratio(totals["to_go"], totals["gone"]) - 1.0, 0.0)
    return figures


def _inner(one: Float[Tensor, "b *latent"], other: Float[Tensor, "b *latent"]) -> Float[Tensor, "b"]:
    return (one * other).flatten(1).mean(1)


def _cosine(one: Float[Tensor, "b *latent"], other: Float[Tensor, "b *latent"]) -> Float[Tensor, "b"]:
    return _ratio(_inner(one, other), (_inner(one, one) * _inner(other, other)).sqrt())


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    """0 where both are: a direction of no length has no side."""
    return one / other.clamp_min(torch.finfo(torch.float32).tiny)


def _same_answer(one: Views, other: Views) -> bool:
    return one.x0_student.data_ptr() == other.x0_student.data_ptr()
