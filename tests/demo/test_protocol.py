"""The demo's protocol: which pictures make a row, and that its figures are those of the pictures."""

from pathlib import Path

import pytest
import torch

from fewstep.demo.protocol import FULL, METRICS, NOISE_SEEDS, OPEN, Part, Protocol, Row, mean_row
from fewstep.demo.shipped_rows import load_teacher
from fewstep.demo.showcase import draw_with
from fewstep.embedded.digits.prompts import NUM_COLOURS, full_prompts, open_colour_prompts
from fewstep.embedded.digits.task import Digits
from fewstep.sampling.model_spec import ModelSpec
from fewstep.scores.statistics.diversity import histogram, total_variation, within_prompt_diversity
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.kernel import kernel_distance
from fewstep.scores.statistics.prdc import prdc
from tests.demo.small import SMALL


def prompts_of(part: Part) -> list[str]:
    return [item.text for item in part.task(NOISE_SEEDS[0]).prompts.items]


def test_the_full_set_is_1400_pictures_20_of_each_of_70_prompts() -> None:
    assert (prompts_of(FULL), FULL.copies, FULL.num_pictures) == (full_prompts(), 20, 1400)


def test_the_open_set_is_1400_pictures_140_of_each_of_10_prompts() -> None:
    assert (prompts_of(OPEN), OPEN.copies, OPEN.num_pictures) == (open_colour_prompts(), 140, 1400)


@pytest.mark.parametrize("part", [FULL, OPEN], ids=["full", "open"])
def test_no_two_pictures_share_prompt_and_seed(part: Part) -> None:
    seeds = [seed for noise_seed in NOISE_SEEDS for seed in part.task(noise_seed).seeds]
    assert len(set(seeds)) == len(seeds) == len(NOISE_SEEDS) * part.copies


def test_diversity_is_relative_to_real_pictures() -> None:
    found = {"fid": 1.0, "kid": 2.0, "digits": 0.5, "spread": 6.0, "colours": 0.25}
    shares = dict.fromkeys(("precision", "recall", "density", "coverage"), 0.75)
    row = Protocol(real_diversity=4.0).row({**found, **shares}, guidance=2.0)
    assert (row.fd, row.kd, row.accuracy, row.diversity, row.tv) == (1.0, 2.0, 0.5, 1.5, 0.25)
    assert (row.coverage, row.guidance, row.n) == (0.75, 2.0, 1400)


def test_a_row_is_what_the_formulas_say_of_pictures_that_are_drawn_in_memory(tmp_path: Path) -> None:
    teacher, sigmas = load_teacher(), (1.0, 0.5)
    (row,) = SMALL.measure(ModelSpec(model="fewstep:digits", sigmas=sigmas, guidance_scale=1.5), tmp_path)

    draw, classifier = draw_with(teacher, sigmas=torch.tensor(sigmas), guidance_scale=1.5), Digits().load_judge()
    repeated = [
        [prompt for prompt in prompts_of(part) for _ in range(part.copies)] for part in (SMALL.full, SMALL.open)
    ]
    first = 1000 * SMALL.noise_seeds[0]
    full, free = (
        classifier.predict(draw(prompts, [first + copy for copy in range(part.copies)] * (len(prompts) // part.copies)))
        for prompts, part in zip(repeated, (SMALL.full, SMALL.open), strict=True)
    )
    kinds = torch.arange(70).repeat_interleave(SMALL.full.copies)
    real = Digits().load_reference()
    shares = prdc(real, full.features, k=5)
    colours = histogram(free.colours, num_choices=NUM_COLOURS)
    expected = {
        "fd": frechet_distance(real, full.features),
        "kd": kernel_distance(real, full.features, real_strata=torch.arange(1400) % 70, generated_strata=kinds),
        "accuracy": float(full.matches(kinds // 7, kinds % 7).double().mean()),
        "precision": shares.precision,
        "recall": shares.recall,
        "density": shares.density,
        "coverage": shares.coverage,
        "diversity": within_prompt_diversity(free.features, torch.arange(10).repeat_interleave(SMALL.open.copies)),
        "tv": total_variation(colours, torch.full_like(colours, 1 / NUM_COLOURS)),
    }
    # a file keeps the bytes, not their layout in memory, and kernels of another layout round differently
    assert {name: getattr(row, name) for name in METRICS} == pytest.approx(expected, rel=1e-4)
    assert (row.guidance, row.n) == (1.5, 140)
    assert list(tmp_path.iterdir()) == []


def test_a_mean_row_averages_every_metric() -> None:
    low = Row(**dict.fromkeys(METRICS, 1.0), guidance=2.0, n=4)
    high = Row(**dict.fromkeys(METRICS, 2.0), guidance=2.0, n=4)
    assert mean_row([low, high]) == Row(**dict.fromkeys(METRICS, 1.5), guidance=2.0, n=4)
