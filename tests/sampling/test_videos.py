"""Videos are drawn and written as videos."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.backbones import create_model_adapter
from fewstep.backbones.wan import WanAdapter
from fewstep.export import export_student
from fewstep.sampling import sample
from fewstep.sampling.pictures import save_video, to_pil
from fewstep.training.watching import _row
from tests.backbones import tiny, tiny_wan


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    folder = tiny.save(tiny_wan.wan_pipeline(), root / "teacher")
    config = WanAdapter.config_class(model=str(folder), height=16, width=32, frames=5, max_sequence_length=24)
    adapter = create_model_adapter(folder, config)
    return export_student(adapter, adapter.load_network(), root / "student", levels=(1.0, 0.5)).folder


def test_a_student_of_videos_writes_a_gif(student: Path, tmp_path: Path) -> None:
    (frames,) = sample(student, "a cat", steps=2, output=tmp_path / "cat.gif")
    assert [frame.size for frame in frames] == [(32, 16)] * 5
    with Image.open(tmp_path / "cat.gif") as written:
        assert (written.size, getattr(written, "n_frames", 1)) == ((32, 16), 5)


def test_the_words_behind_a_model_say_how_many_frames(student: Path) -> None:
    (frames,) = sample(f"{student},frames=9", "a cat", steps=1, size="32x16", device="cpu")
    assert [frame.size for frame in frames] == [(16, 32)] * 9


def test_a_grid_of_videos_shows_three_frames_of_each(student: Path, tmp_path: Path) -> None:
    (frames,) = sample(student, "a cat", steps=1, device="cpu", grid=True, output=tmp_path / "cat.png")
    sheet = Image.open(tmp_path / "cat.png")
    assert sheet.size == (96, 16)
    shown = [sheet.crop((left, 0, left + 32, 16)).tobytes() for left in (0, 32, 64)]
    assert shown == [frames[number].tobytes() for number in (0, 2, 4)]


@pytest.mark.skipif(not (find_spec("imageio_ffmpeg") or find_spec("cv2")), reason="no package writes MP4")
def test_an_mp4_is_written_where_a_package_can(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 16), (40 * index, 0, 0)) for index in range(5)]
    save_video(frames, tmp_path / "red.mp4", frame_rate=16)
    assert (tmp_path / "red.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in tmp_path.iterdir()] == ["red.mp4"]


def test_a_sheet_shows_the_first_the_middle_and_the_last_frame() -> None:
    videos = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(2, 3, 5, 1, 1)
    assert _row(videos)[0, 0].tolist() == [0, 2, 4, 0, 2, 4]


def test_pixels_of_videos_become_lists_of_frames() -> None:
    first, second = to_pil(torch.zeros(2, 3, 5, 4, 8, dtype=torch.uint8))
    assert len(first) == len(second) == 5
    assert first[0].size == (8, 4)
