"""The metrics over features, with the classifier inside the package."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file

from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, Metric, Picture, PromptItem
from fewstep.scores.networks.extractors import CLIP
from fewstep.scores.registry import create_metrics
from fewstep.scores.statistics.diversity import cosine_diversity, vendi_score
from fewstep.scores.statistics.kernel import mean_discrepancy
from tests.scores.tiny_digits import write_digits
from tests.scores.tiny_pictures import features_of

NAMES = ("fid", "kid", "cmmd", "prdc", "vendi", "diversity")


def metric(name: str, **settings: Any) -> Metric:
    (made,) = create_metrics([name], {name: {"extractor": "digits", **settings}})
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Twelve prompts with two pictures each."""
    return write_digits(tmp_path_factory.mktemp("drawn"), range(0, 70, 6), seeds=2, noise=7)


@pytest.fixture(scope="module")
def features(pictures: list[Picture]) -> torch.Tensor:
    chosen = metric("fid")
    chosen.load(torch.device("cpu"))
    return features_of(chosen, pictures)


def concluded(metric: Metric, pictures: list[Picture], features: torch.Tensor) -> dict[str, float]:
    return metric.conclude(pictures, [Finding(features=row) for row in features])


def no_pictures(count: int, prompts: int = 1) -> list[Picture]:
    """Names for features that come from no picture."""
    return [Picture(Path(f"{i}.png"), PromptItem(f"p{i % prompts}", ""), seed=i) for i in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_of_the_extractor_that_is_used(name: str) -> None:
    card = metric(name).card
    assert (card.source, card.licence) == (None, "Apache-2.0 (part of fewstep)")
    assert "224" not in card.preprocessing


def test_fid_is_that_of_scipy_in_float64(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    real, drawn = (
        torch.randn(count, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + shift
        for count, shift in ((300, 0.0), (200, 0.3))
    )
    save_file({"features": real}, tmp_path / "real.safetensors")
    found = concluded(metric("fid", reference=str(tmp_path / "real.safetensors")), no_pictures(200), drawn)["fid"]
    a, b = real.double().numpy(), drawn.double().numpy()
    root = np.real(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert found == pytest.approx(expected, rel=1e-9)


def test_fid_to_stored_statistics_is_the_closed_form_for_gaussians(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    sample = sample - sample.mean(0)
    sample = sample @ torch.linalg.inv(torch.linalg.cholesky(sample.mT.cov())).mT  # covariance exactly one
    np.savez(tmp_path / "real.npz", mu=np.zeros(5), sigma=9 * np.eye(5))
    drawn = (2 * sample + 1.5).float()
    value = concluded(metric("fid", reference=str(tmp_path / "real.npz")), no_pictures(200), drawn)["fid"]
    assert value == pytest.approx(5 * 1.5**2 + 5 * (3 - 2) ** 2, rel=1e-5)


def cube(a: np.ndarray, b: np.ndarray) -> float:
    return float((a @ b / len(a) + 1) ** 3)


def test_kid_weights_pairs_of_a_prompt_as_independent_draws_would_form_them(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3))
    real = np.random.default_rng(1).normal(size=(3, 3))
    save_file({"features": torch.from_numpy(real)}, tmp_path / "real.safetensors")
    found = concluded(
        metric("kid", reference=str(tmp_path / "real.safetensors")), no_pictures(4, prompts=2), torch.from_numpy(rows)
    )["kid"]
    # pictures 0, 2 and 1, 3 share a prompt: half of all independent pairs share one, the others are the four crossings
    same = (cube(rows[0], rows[2]) + cube(rows[1], rows[3])) / 2
    across = np.mean([cube(rows[i], rows[j]) for i in (0, 2) for j in (1, 3)])
    among_real = np.mean([cube(real[i], real[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
    between = np.mean([cube(a, b) for a in rows for b in real])
    assert found == pytest.approx(1000 * ((same + across) / 2 + among_real - 2 * between), rel=1e-9)


def test_kid_of_one_picture_per_prompt_is_the_plain_estimate(tmp_path: Path) -> None:
    rows, real = np.random.default_rng(2).normal(size=(2, 3, 4))
    save_file({"features": torch.from_numpy(real)}, tmp_path / "real.safetensors")
    found = concluded(
        metric("kid", reference=str(tmp_path / "real.safetensors")), no_pictures(3, prompts=3), torch.from_numpy(rows)
    )["kid"]
    pairs = ((0, 1), (0, 2), (1, 2))
    among = np.mean([cube(rows[i], rows[j]) for i, j in pairs]) + np.mean([cube(real[i], real[j]) for i, j in pairs])
    between = np.mean([cube(a, b) for a in rows for b in real])
    assert found == pytest.approx(1000 * (among - 2 * between), rel=1e-9)


def test_kid_over_subsets_of_everything_is_the_plain_estimate(tmp_path: Path) -> None:
    rows, real = np.random.default_rng(3).normal(size=(2, 5, 4))
    save_file({"features": torch.from_numpy(real)}, tmp_path / "real.safetensors")
    found = concluded(
        metric("kid_subsets", reference=str(tmp_path / "real.safetensors"), subsets=3),
        no_pictures(5, prompts=2),
        torch.from_numpy(rows),
    )
    pairs = [(i, j) for i in range(5) for j in range(i)]
    among = np.mean([cube(rows[i], rows[j]) for i, j in pairs]) + np.mean([cube(real[i], real[j]) for i, j in pairs])
    between = np.mean([cube(a, b) for a in rows for b in real])
    assert found["kid_subsets"] == pytest.approx(1000 * (among - 2 * between), rel=1e-9)


def test_kid_over_many_subsets_comes_near_kid_of_all_pairs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    real, rows = torch.randn(300, 8, generator=generator), torch.randn(300, 8, generator=generator) + 0.3
    save_file({"features": real}, tmp_path / "real.safetensors")
    chosen = {"reference": str(tmp_path / "real.safetensors")}
    whole = concluded(metric("kid", **chosen), no_pictures(300, prompts=300), rows)["kid"]
    parts = concluded(
        metric("kid_subsets", subsets=200, subset_size=100, **chosen), no_pictures(300, prompts=300), rows
    )["kid_subsets"]
    # a subset of a third scatters by about a quarter of the value, 200 of them by a fiftieth
    assert parts == pytest.approx(whole, rel=0.1)


def test_a_subset_stays_as_it_was_when_other_pictures_are_left_out(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    real, rows = torch.randn(60, 8, generator=generator), torch.randn(60, 8, generator=generator)
    save_file({"features": real}, tmp_path / "real.safetensors")
    chosen = metric("kid_subsets", reference=str(tmp_path / "real.safetensors"), subsets=5, subset_size=10)
    pictures = no_pictures(60, prompts=60)
    whole = concluded(chosen, pictures, rows)["kid_subsets"]
    # 5 subsets of 10 leave out some picture of 60; without it nothing changes
    without = [
        concluded(chosen, pictures[:i] + pictures[i + 1 :], torch.cat([rows[:i], rows[i + 1 :]])) for i in range(60)
    ]
    assert sum(found["kid_subsets"] == pytest.approx(whole, rel=1e-9) for found in without) >= 20


def test_cmmd_of_two_points_is_the_value_worked_by_hand() -> None:
    # a distance of 10: k = exp(-100 / 200); a point with itself counts, with k = 1
    value = mean_discrepancy(torch.tensor([[0.0, 0.0]]), torch.tensor([[6.0, 8.0]]))
    assert value == pytest.approx(1000 * (2 - 2 * np.exp(-0.5)))


def test_cmmd_of_a_set_with_itself_is_zero(features: torch.Tensor) -> None:
    assert mean_discrepancy(features, features) == pytest.approx(0, abs=1e-9)


def test_prdc_gives_the_shares_worked_by_hand(tmp_path: Path) -> None:
    # real 0, 1, 3 with radii 1, 1, 2 (k = 1): the drawn 0.5 lies in the first two balls, 2 in the third, 9 in none
    save_file({"features": torch.tensor([[0.0], [1.0], [3.0]])}, tmp_path / "real.safetensors")
    chosen = metric("prdc", reference=str(tmp_path / "real.safetensors"), neighbours=1)
    figures = concluded(chosen, no_pictures(3), torch.tensor([[0.5], [2.0], [9.0]]))
    # the drawn have radii 1.5, 1.5, 7: 0 and 1 lie in the first, 3 in the second (distance 1) and third
    assert figures == pytest.approx({"precision": 2 / 3, "recall": 1.0, "density": 1.0, "coverage": 1.0})


def test_the_vendi_score_of_equal_pictures_is_one() -> None:
    assert vendi_score(torch.ones(6, 3)) == pytest.approx(1)


def test_the_vendi_score_of_pictures_at_right_angles_is_their_number() -> None:
    assert vendi_score(torch.eye(5) * 3) == pytest.approx(5)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_the_vendi_score_is_the_entropy_of_the_similarities_whichever_side_is_longer(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    spectrum = np.linalg.eigvalsh(unit @ unit.T / len(rows))
    spectrum = spectrum[spectrum > 1e-12]
    assert vendi_score(torch.from_numpy(rows)) == pytest.approx(np.exp(-(spectrum * np.log(spectrum)).sum()), rel=1e-9)


def test_vendi_is_also_given_for_the_pictures_of_one_prompt() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # prompt 0 holds rows 0 and 2 (two different pictures), prompt 1 rows 1 and 3 (one picture twice)
    assert concluded(metric("vendi"), no_pictures(4, prompts=2), rows)["vendi_per_prompt"] == pytest.approx(1.5)


def test_diversity_is_the_mean_over_prompts_of_one_minus_cosine() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    # prompt 0: one pair at right angles; prompt 1: 0, 1 - 1/sqrt 2 twice
    expected = (1 + 2 / 3 * (1 - 0.5**0.5)) / 2
    assert cosine_diversity(rows, torch.tensor([0, 0, 1, 1, 1])) == pytest.approx(expected, rel=1e-6)


def test_diversity_of_one_picture_per_prompt_says_to_draw_more_seeds() -> None:
    with pytest.raises(ConfigError, match="at least two seeds"):
        concluded(metric("diversity"), no_pictures(3, prompts=3), torch.ones(3, 2))


@pytest.mark.parametrize("score", [vendi_score, lambda rows: cosine_diversity(rows, torch.zeros(2).long())])
def test_features_without_a_direction_are_refused(score) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="features are all zero"):
        score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("name", ["kid", "cmmd", "prdc"])
def test_statistics_are_not_enough_for_metrics_of_single_pictures(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ConfigError, match=f"{name} needs the features of every real picture"):
        concluded(metric(name, reference=str(tmp_path / "real.npz")), no_pictures(3), torch.ones(3, 2))


def test_a_reference_of_another_extractor_is_refused(tmp_path: Path) -> None:
    save_file({"features": torch.zeros(4, 2048)}, tmp_path / "real.safetensors")
    with pytest.raises(ConfigError, match="features of 2048 numbers, the extractor digits gives 64"):
        concluded(metric("fid", reference=str(tmp_path / "real.safetensors")), no_pictures(3), torch.zeros(3, 64))


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_needs_no_loaded_network(name: str, pictures: list[Picture], features: torch.Tensor) -> None:
    chosen = metric(name)
    chosen.check([picture.item for picture in pictures])
    chosen.load(torch.device("cpu"))
    before = concluded(chosen, pictures, features)
    chosen.unload()
    assert concluded(chosen, pictures, features) == before


def test_a_reference_folder_is_read_and_the_network_dropped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: torch.Tensor, pictures: list[Picture]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_digits(tmp_path / "real", range(12))
    chosen: Any = metric("fid", reference=str(tmp_path / "real"))
    value = concluded(chosen, pictures, features)["fid"]
    assert value > 0 and not chosen.extractor.is_loaded


def test_equal_extractors_share_their_features_and_others_do_not() -> None:
    assert metric("fid").findings_key == metric("kid").findings_key
    assert metric("fid").findings_key != metric("fid", extractor="clip").findings_key


def test_the_reference_is_part_of_what_the_number_depends_on(tmp_path: Path) -> None:
    write_digits(tmp_path / "real", [1, 2, 3])
    assert metric("fid").identity() != metric("fid", reference=str(tmp_path / "real")).identity()


def test_an_unknown_extractor_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"fid\.extractor.*'inception', .*'digits'"):
        metric("fid", extractor="vgg")


def test_what_happens_to_a_picture_is_part_of_the_protocol() -> None:
    chosen = metric("vendi", extractor="clip")
    assert chosen.identity() == {"preprocessing": CLIP.preprocessing}
