"""The comparison with the plain formulation passes for equal trainers and fails for every way to make one differ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.bench_trainer import draw_with_lengths, random_trainer
from benchmarks.networks import Size
from benchmarks.plain import PlainTrainer, require_plain
from benchmarks.training import MEAN_LENGTH, best_ratio, compare, too_far_apart, weight_differences

from fewstep.config import load_recipe
from fewstep.core.points import NoisyLatent
from fewstep.data.prompts import load_prompts
from fewstep.training.trainer import StepReport, Trainer

# learning rates that move the fake score away from the teacher at once: until then dm and cdm are zero
QUICK = [
    "backbone.max_sequence_length=3",
    "batch=3",
    "memory.gradient_checkpointing=true",
    "student.lr=1e-3",
    "student.warmup=0",
    "fake_score.lr=1e-3",
    "fake_score.warmup=0",
]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cat\na blue boat\nan old road\n")
    with random_trainer(
        Size(layers=2, heads=1, latent_side=4, text_width=64), [*QUICK, f"prompts.path={prompts}"]
    ) as made:
        made.draw = draw_with_lengths(made, [3, 2])
        yield made


def plain_of(trainer: Trainer, **changed: Any) -> PlainTrainer:
    config = trainer.config.model_copy(update=changed)
    return PlainTrainer(config, trainer.adapter, load_prompts(config.prompts), trainer.draw)


def steps_of(trainer: Trainer, plain: PlainTrainer) -> list[str]:
    """Make one student update with each, and say what differs."""
    for _ in range(trainer.config.student.every):
        trainer.run_step()
        plain.run_step()
    return too_far_apart(weight_differences(trainer, plain))


def test_both_formulations_move_the_weights_alike_and_cost_what_the_formulas_say(trainer: Trainer) -> None:
    found, problems = compare(trainer, plain_of(trainer), updates=1)
    assert problems == []
    assert set(found["weights_relative_difference"]) == {"student", "fake_score", "average"}
    # 5 calls simulate; one for each term has a gradient, is recomputed and goes back
    student = {"calls": 8, "forward": 24, "backward_calls": 3, "backward": 9, "recomputed": 9, "units": 51}
    assert found["plain"]["roles"]["student"] == student
    assert found["plain"]["roles"]["teacher"]["calls"] == 3
    # three questions of the three samples about the shared graph at once, and one about cdm's
    teacher = {"calls": 2, "forward": 12, "backward_calls": 0, "backward": 0, "recomputed": 0, "units": 12}
    assert found["ours"]["roles"]["teacher"] == teacher
    assert found["ours"]["roles"]["student"]["backward_calls"] == 2


def without_cdm(trainer: Trainer) -> PlainTrainer:
    return plain_of(trainer, terms=trainer.config.terms.model_copy(update={"cdm": None}))


def without_alignment(trainer: Trainer) -> PlainTrainer:
    return plain_of(trainer, fake_score=trainer.config.fake_score.model_copy(update={"align": None}))


def with_other_draws(trainer: Trainer) -> PlainTrainer:
    other = plain_of(trainer)
    other.draw = lambda step, rows, with_terms: trainer.draw(step + 2, rows, with_terms)
    return other


def with_other_prompts(trainer: Trainer) -> PlainTrainer:
    other = plain_of(trainer)
    other.prompts = tuple(f"{prompt} at night" for prompt in other.prompts)
    return other


def with_another_normaliser(trainer: Trainer) -> PlainTrainer:
    dm = trainer.config.terms.dm
    assert dm is not None
    floor = trainer.config.terms.model_copy(update={"dm": dm.model_copy(update={"floor": 10.0})})
    return plain_of(trainer, terms=floor)


@pytest.mark.parametrize(
    "broken", [without_cdm, without_alignment, with_other_draws, with_other_prompts, with_another_normaliser]
)
def test_a_broken_formulation_is_told(trainer: Trainer, broken: Callable[[Trainer], PlainTrainer]) -> None:
    problems = steps_of(trainer, broken(trainer))
    assert problems
    assert all("of how far they moved; at most 1e-03 is rounding." in sentence for sentence in problems)


def test_calls_that_the_formulas_do_not_have_are_told(trainer: Trainer) -> None:
    asked, size = trainer.run_step, trainer.config.backbone.training_sizes[0]

    def with_one_call_more(**options: bool) -> StepReport:
        point = NoisyLatent(torch.zeros(1, *trainer.adapter.latent_shape(*size)), torch.ones(1))
        trainer.roles.teacher(point, trainer.embeddings.batch([0]))
        return asked(**options)

    trainer.run_step = with_one_call_more  # type: ignore[method-assign]
    _, (problem,) = compare(trainer, plain_of(trainer), updates=1)
    assert problem.startswith("ours cost ")
    assert "the formulas say" in problem


def test_weights_that_have_not_moved_alike_are_apart_by_their_share(trainer: Trainer) -> None:
    plain = plain_of(trainer)
    plain.run_step()
    assert weight_differences(trainer, plain)["fake_score"] == pytest.approx(1.0)


@pytest.mark.parametrize(("checkpointing", "best"), [("false", 50 / 32.5), ("true", 55 / 36.5)])
def test_the_theoretical_best_is_the_ratio_of_the_formulas(checkpointing: str, best: float) -> None:
    config = load_recipe("sd3-medium", [f"memory.gradient_checkpointing={checkpointing}"]).config
    assert best_ratio(config, MEAN_LENGTH) == pytest.approx(best)


def test_a_recipe_with_other_losses_is_not_compared() -> None:
    with pytest.raises(ValueError, match="terms as the released settings have them"):
        require_plain(load_recipe("dmd2").config)
