"""Many pictures as one."""

import numpy as np
import pytest
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.sampling.sheets import Column, comparison_sheet, grid_sheet, require_fits

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_a_sheet_has_the_pictures_in_rows() -> None:
    sheet = grid_sheet([plain(RED), plain(GREEN), plain(BLUE)])
    assert sheet.size == (48, 28)
    assert [sheet.getpixel(place) for place in ((5, 5), (35, 5), (5, 25))] == [RED, GREEN, BLUE]
    assert sheet.getpixel((35, 25)) == (255, 255, 255)


def test_a_clip_is_shown_by_three_frames() -> None:
    sheet = grid_sheet([[plain(RED), plain(BLUE), plain(GREEN), plain(BLUE), plain(BLUE)]])
    assert [sheet.getpixel((x, 5)) for x in (5, 25, 45)] == [RED, GREEN, BLUE]


def test_two_models_stand_side_by_side_with_small_pictures_enlarged() -> None:
    prompts = ["a cat", "a dog " * 1000]
    columns = [Column(name, ["4 steps"], [plain(colour)] * 2) for name, colour in (("a", RED), ("b", BLUE))]
    sheet = comparison_sheet(columns, prompts)
    pixels = np.asarray(sheet)
    assert sheet.width == 2 * 16 + 2 * 260 + 8
    # pictures of 20 x 10, thirteen times as large
    assert [int((pixels == colour).all(-1).sum()) for colour in (RED, BLUE)] == [2 * 260 * 130] * 2
    assert (pixels[:, :16] == 255).all() and (pixels[:, -16:] == 255).all()


@pytest.mark.parametrize(
    ("compared", "told"),
    [(False, "100 pictures of 1024 x 1024 would have 10240 x 10240"), (True, "100 pairs of 1024 x 1024 would have")],
)
def test_a_sheet_that_few_programs_open_is_refused(compared: bool, told: str) -> None:
    require_fits(30, height=1024, width=1024, frames=None, compared=compared)
    with pytest.raises(ConfigError, match=f"A sheet of {told}.* pixels, more than 67108864; give fewer prompts or"):
        require_fits(100, height=1024, width=1024, frames=None, compared=compared)
