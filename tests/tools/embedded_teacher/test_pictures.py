"""The pictures that the teacher learns from: the split of the base digits, and how a base digit becomes a picture."""

import sys

import pytest
import torch

from fewstep.embedded.digits.prompts import NUM_COLOURS
from fewstep.errors import ConfigError
from tools.embedded_teacher import pictures
from tools.embedded_teacher.pictures import BaseDigits


@pytest.fixture(scope="module")
def base() -> BaseDigits:
    """Two hundred base digits of random strokes, twenty of each class."""
    generator = torch.Generator().manual_seed(0)
    return BaseDigits(torch.rand(200, 8, 8, generator=generator), torch.arange(200) % 10)


def test_split_holds_out_the_same_share_of_every_digit(base: BaseDigits) -> None:
    _, held_out = pictures.split_base_digits(base, held_out=0.3, seed=0)
    assert torch.bincount(held_out.digits).tolist() == [6] * 10


def test_no_base_digit_is_on_both_sides_of_the_split(base: BaseDigits) -> None:
    train, held_out = pictures.split_base_digits(base, held_out=0.3, seed=0)
    distance = torch.cdist(train.images.flatten(1), held_out.images.flatten(1))
    assert float(distance.min()) > 0.1
    assert len(train) + len(held_out) == len(base)


def test_same_seed_draws_the_same_pictures(base: BaseDigits) -> None:
    first, second = (pictures.draw_prompted(base, [(3, 1), (7, None)], seed=5) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)


def test_another_seed_draws_other_pictures(base: BaseDigits) -> None:
    first, second = (pictures.draw_prompted(base, [(3, 1), (7, None)], seed=seed) for seed in (5, 6))
    assert not torch.equal(first.pixels, second.pixels)


def test_drawn_pictures_show_the_prompted_digit_and_colour(base: BaseDigits) -> None:
    drawn = pictures.draw_prompted(base, [(3, 1), (7, 6)], seed=5)
    assert drawn.digits.tolist() == [3, 7]
    assert drawn.colours.tolist() == [1, 6]


def test_open_colour_is_drawn_from_all_colours(base: BaseDigits) -> None:
    drawn = pictures.draw_prompted(base, [(3, None)] * 200, seed=5)
    assert drawn.colours.unique().tolist() == list(range(NUM_COLOURS))


def test_pool_holds_every_colour_of_a_base_digit_once_in_seven_draws(base: BaseDigits) -> None:
    pool = pictures.draw_pool(base, num_per_digit=7, seed=1)
    assert pool.colours[:: len(base)].sort().values.tolist() == list(range(7))


def test_red_tint_keeps_red_and_darkens_the_rest() -> None:
    pixels = pictures.tint(torch.ones(1, 32, 32), torch.tensor([0]))
    assert pixels[0, :, 0, 0].tolist() == [255, 38, 38]


def test_identity_map_enlarges_without_moving_the_centre_of_mass() -> None:
    images = torch.zeros(1, 8, 8)
    images[:, 3:5, 3:5] = 1.0
    enlarged = pictures.warp(images, torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))[0]
    rows = torch.arange(32.0)
    assert float((enlarged.sum(1) * rows).sum() / enlarged.sum()) == pytest.approx(15.5, abs=1e-4)
    assert float((enlarged.sum(0) * rows).sum() / enlarged.sum()) == pytest.approx(15.5, abs=1e-4)


def test_warped_pictures_stay_between_black_and_white(base: BaseDigits) -> None:
    maps = pictures.random_affine(len(base), torch.Generator().manual_seed(0))
    warped = pictures.warp(base.images, maps)
    assert 0.0 <= float(warped.min()) <= float(warped.max()) <= 1.0


def test_affine_maps_stay_within_the_stated_limits() -> None:
    maps = pictures.random_affine(4096, torch.Generator().manual_seed(0))
    scale = maps[:, :, :2].det().rsqrt()
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert float(angle.abs().max()) == pytest.approx(10.0, abs=0.05)
    assert float((scale - 1).abs().max()) == pytest.approx(0.12, abs=0.002)
    assert float(maps[:, :, 2].abs().max()) == pytest.approx(0.2, abs=0.002)


def test_missing_scikit_learn_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"scikit-learn, which is not installed.*pip install scikit-learn"):
        pictures.load_base_digits()


def test_base_digits_of_scikit_learn_are_1797_grey_pictures_from_0_to_1() -> None:
    pytest.importorskip("sklearn")
    base = pictures.load_base_digits()
    assert base.images.shape == (pictures.NUM_BASE_DIGITS, 8, 8)
    assert (float(base.images.min()), float(base.images.max())) == (0.0, 1.0)
