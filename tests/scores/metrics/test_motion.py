"""Flicker and consistency in closed form, and what of a clip each metric looks at."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, MetricError, Picture, PromptItem, frames_of
from fewstep.scores.registry import check_metrics, create_metrics, metric_names
from fewstep.scores.scoring import measure
from tests.scores.tiny_pictures import metric_of

ITEM = PromptItem("p", "a red cat")
CPU = torch.device("cpu")


def clip(folder: Path, *greys: int, size: tuple[int, int] = (8, 4)) -> list[Picture]:
    """A clip whose frames are each of one grey."""
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(greys))]
    for path, grey in zip(paths, greys, strict=True):
        Image.new("RGB", size, (grey, grey, grey)).save(path)
    return frames_of(paths, ITEM, seed=0)


def no_files(*lengths: int) -> list[Picture]:
    """Names for features that come from no picture: a clip of each length."""
    clips = [[Path(f"{seed}.{number}") for number in range(length)] for seed, length in enumerate(lengths)]
    return [picture for seed, paths in enumerate(clips) for picture in frames_of(paths, ITEM, seed)]


def test_flicker_is_one_minus_the_mean_step_of_the_pixels(tmp_path: Path) -> None:
    # steps of 51, 102 and 0 of 255
    frames = clip(tmp_path / "a", 0, 51, 153, 153)
    assert measure(metric_of("flicker"), frames, CPU) == {"flicker": pytest.approx(1 - (0.2 + 0.4 + 0) / 3)}


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_flicker_is_the_same_whoever_is_looked_at_together(tmp_path: Path, batch: int) -> None:
    # going down counts as going up: bytes are not subtracted as bytes
    frames = clip(tmp_path / "a", 255, 0, 255)
    assert measure(metric_of("flicker", batch=batch), frames, CPU) == {"flicker": 0.0}


def test_frames_of_two_sizes_are_told_by_name(tmp_path: Path) -> None:
    frames = clip(tmp_path / "a", 1, 2, 3)
    Image.new("RGB", (4, 4)).save(frames[1].path)
    with pytest.raises(MetricError, match=r"1\.png .* it has 4 x 4 pixels, and the frame before it 8 x 4\. It was"):
        measure(metric_of("flicker"), frames, CPU)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_broken_frame_is_told_by_name(tmp_path: Path, batch: int) -> None:
    frames = clip(tmp_path / "a", 1, 2, 3)
    frames[0].path.write_bytes(frames[0].path.read_bytes()[:40])
    with pytest.raises(MetricError, match=r"flicker cannot score .*0\.png .* cannot be read as a picture"):
        measure(metric_of("flicker", batch=batch), frames, CPU)


def test_consistency_is_the_mean_cosine_to_the_first_frame_and_to_the_one_before() -> None:
    # at right angles, back to the start, and opposite to it, which counts as nothing in common
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]])
    found = metric_of("consistency", extractor="digits").conclude(no_files(4), [Finding(features=r) for r in rows])
    assert found == {"consistency": pytest.approx((0 + 0 + 1 + 0 + 0 + 0) / 6)}


def test_consistency_compares_no_frame_with_that_of_another_clip() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = metric_of("consistency", extractor="digits").conclude(no_files(2, 2), [Finding(features=r) for r in rows])
    assert found == {"consistency": pytest.approx(1)}


@pytest.mark.parametrize(
    ("name", "settings", "frames"),
    [
        ("aesthetic", {}, [0, 1, 2, 3, 4]),
        ("aesthetic", {"frames": "three"}, [0, 2, 4]),
        ("aesthetic", {"frames": "middle"}, [2]),
        ("prdc", {}, [2]),
        ("flicker", {}, [1, 2, 3, 4]),
        ("consistency", {}, [0, 1, 2, 3, 4]),
    ],
)
def test_of_a_clip_a_metric_looks_at_the_frames_that_it_says(
    name: str, settings: dict[str, str], frames: list[int]
) -> None:
    assert [picture.frame for picture in metric_of(name, **settings).chosen(no_files(5))] == frames


@pytest.mark.parametrize("name", [name for name in metric_names() if name not in ("flicker", "consistency")])
def test_a_picture_that_is_no_frame_is_always_looked_at(name: str) -> None:
    picture = Picture(Path("a.png"), ITEM, seed=0)
    assert metric_of(name).chosen([picture]) == [picture]


@pytest.mark.parametrize("name", ["fid", "vendi"])
def test_a_set_of_all_frames_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\.frames is 'all': Input should be 'middle'"):
        create_metrics([name], {name: {"frames": "all"}})


@pytest.mark.parametrize("name", ["flicker", "consistency"])
def test_single_pictures_are_refused_before_any_is_scored(name: str) -> None:
    metrics = create_metrics([name], {} if name == "flicker" else {name: {"extractor": "digits"}})
    with pytest.raises(ConfigError, match=f"{name} compares the frames of a clip, and here are single pictures"):
        check_metrics(metrics, [ITEM], num_seeds=1)
