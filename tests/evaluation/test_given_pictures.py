"""Pictures that another tool drew: found by name, by number or by a list, and refused in one sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from fewstep.embedded.scenes.task import Scenes
from fewstep.errors import CheckpointError, ConfigError
from fewstep.evaluation.folder import Extras, Task
from fewstep.evaluation.given_pictures import GivenPictures, open_pictures
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.evaluation.session import Order, run_evaluation
from tests.scores.tiny_digits import write_digits
from tests.scores.tiny_scenes import write_scenes

TEXTS = ("a red handwritten three", "A blue, handwritten six!", "a green handwritten one")


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    return str(tmp_path / "prompts.txt")


def draw(folder: Path, names: Sequence[str], *, size: int = 32, mode: str = "RGB") -> Path:
    """Pictures that can be told apart: each is one grey, its place among the names."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (size, size), (number * 20,) * 3).save(folder / name)
    return folder


def opened(place: Path, prompts: str, *, seeds: tuple[int, ...] = (0,), first: int | None = None) -> GivenPictures:
    whole = load_prompt_set(prompts)
    return open_pictures(str(place), whole.items, Task(whole.first(first), seeds, Extras()))


def order_of(given: GivenPictures) -> list[str]:
    """Names of the files, prompt by prompt."""
    return [given.files[key].name for key in sorted(given.files)]


@pytest.mark.parametrize(
    "names",
    [
        ("00000.png", "00001.png", "00002.png"),
        ("0.webp", "1.webp", "2.webp"),
        ("1.png", "2.jpg", "3.webp"),
        ("image_8of9_001.png", "image_8of9_002.png", "image_8of9_003.png"),
        ("a red handwritten three.png", "A blue, handwritten six!.png", "a green handwritten one.png"),
        ("a_red_handwritten_three.jpg", "a-blue-handwritten-six.jpg", "a_green_handwritten_one.jpg"),
        ("00000/samples/0000.png", "00001/samples/0000.png", "00002/samples/0000.png"),
    ],
)
def test_a_picture_of_each_prompt_is_found(tmp_path: Path, prompts: str, names: tuple[str, ...]) -> None:
    given = opened(draw(tmp_path / "drawn", names), prompts)
    assert order_of(given) == [Path(name).name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("00000_0.png", "00000_1.png", "00001_0.png", "00001_1.png", "00002_0.png", "00002_1.png"),
        ("0.png", "1.png", "2.png", "3.png", "4.png", "5.png"),
        ("p1-s9.png", "p1-s10.png", "p2-s9.png", "p2-s10.png", "p3-s9.png", "p3-s10.png"),
        ("00000/a.png", "00000/b.png", "00001/a.png", "00001/b.png", "00002/a.png", "00002/b.png"),
    ],
)
def test_several_pictures_of_each_prompt_are_its_seeds_in_order(
    tmp_path: Path, prompts: str, names: tuple[str, ...]
) -> None:
    given = opened(draw(tmp_path / "drawn", names), prompts, seeds=(0, 1))
    assert list(given.files) == [(f"{prompt:05d}", seed) for prompt in range(3) for seed in (0, 1)]
    assert order_of(given) == [Path(name).name for name in names]


@pytest.mark.parametrize("told", [{"prompt": TEXTS[1]}, {"id": "00001"}, {"text": TEXTS[1]}])
def test_a_list_names_the_picture_of_a_prompt(tmp_path: Path, prompts: str, told: dict[str, str]) -> None:
    draw(tmp_path / "drawn", ("x.png", "y.png", "z.png"))
    rows = [{"file_name": "x.png", "prompt": TEXTS[2]}, {"file_name": "y.png", "prompt": TEXTS[0]}]
    lines = [json.dumps(row) for row in (*rows, {"file_name": "z.png", **told})]
    (tmp_path / "drawn" / "list.jsonl").write_text("\n".join(lines))
    assert order_of(opened(tmp_path / "drawn" / "list.jsonl", prompts)) == ["y.png", "z.png", "x.png"]


def test_the_first_prompts_are_scored_of_pictures_of_all(tmp_path: Path, prompts: str) -> None:
    assert order_of(opened(draw(tmp_path / "drawn", ("1.png", "2.png", "3.png")), prompts, first=2)) == [
        "1.png",
        "2.png",
    ]


def refused(place: Path | str, prompts: str, **choices: Any) -> str:
    with pytest.raises(ConfigError) as told:
        opened(place, prompts, **choices)  # type: ignore[arg-type]
    return str(told.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("00000.png", "00002.png"), "1 of 3 prompts have no picture in {}, the first is 00001 ('A blue, handwritten"),
        (("cat.png", "00001.png"), "1 of 2 pictures in {} fit no prompt, the first is 'cat.png'; call them after"),
        (("7.png", "8.png", "9.png"), "3 of 3 pictures in {} fit no prompt, the first is '7.png'"),
        (("00000_0.png", "00000_1.png", "00001.png", "00002.png"), "has 2 pictures in {}, and 1 of each are asked for"),
        ((), "--pictures is {}, which is no folder with pictures (.png, .jpg, .jpeg, .webp, .bmp)"),
    ],
)
def test_pictures_that_fit_no_prompts_are_refused(
    tmp_path: Path, prompts: str, names: tuple[str, ...], message: str
) -> None:
    assert message.format(tmp_path / "drawn") in refused(draw(tmp_path / "drawn", names), prompts)


def test_pictures_of_other_sizes_are_refused(tmp_path: Path, prompts: str) -> None:
    draw(tmp_path / "drawn", ("0.png", "1.png", "2.png"))
    Image.new("RGB", (40, 32)).save(tmp_path / "drawn" / "2.png")
    said = refused(tmp_path / "drawn", prompts)
    assert f"{tmp_path / 'drawn' / '2.png'} has 40 x 32 pixels and {tmp_path / 'drawn' / '0.png'} 32 x 32" in said


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, prompts: str) -> None:
    draw(tmp_path / "drawn", ("0.png", "1.png", "2.png"))
    (tmp_path / "drawn" / "1.png").write_bytes(b"no picture")
    said = refused(tmp_path / "drawn", prompts)
    assert said.startswith(
        f"The picture {tmp_path / 'drawn' / '1.png'} cannot be used: it is no PNG, JPEG, WEBP or BMP"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": TEXTS[0]}, "names no picture; put its path into a column file_name."),
        ({"file_name": "0.png", "prompt": "a cat"}, "is about 'a cat', which is no prompt of the set"),
        ({"file_name": "gone.png", "prompt": TEXTS[0]}, "gone.png cannot be used: it is missing."),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, prompts: str, row: dict[str, str], message: str) -> None:
    draw(tmp_path, ("0.png",))
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    assert message in refused(tmp_path / "list.jsonl", prompts, first=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drawn,steps=4", "--pictures 'drawn,steps=4' sets steps; of given pictures only the name can be set."),
        ("list.txt", "give a folder of pictures, or a .jsonl file that names them."),
    ],
)
def test_other_choices_are_refused(
    tmp_path: Path, prompts: str, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("x")
    assert message in refused(text, prompts)


def evaluated(
    output: Path, *pictures: str, prompts: str, metrics: tuple[str, ...] = ("digits",), **choices: Any
) -> dict[str, Any]:
    order = Order(output=output, pictures=pictures, prompts=prompts, metrics=metrics, device="cpu", **choices)
    summary = run_evaluation(order, console=Console(quiet=True))
    assert summary is not None
    return summary


def test_pictures_of_scenes_are_measured_by_their_own_metric_and_features(tmp_path: Path) -> None:
    write_scenes(tmp_path / "real", Scenes().prompts("scenes")[:6])
    summary = evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="scenes", num_prompts=6, metrics=())
    found = {row["metric"]: row["value"] for row in summary["scores"]}
    assert found["scenes"] == 1.0 and {"fid", "kid"} <= found.keys()
    assert summary["prompts"]["name"] == "scenes"


def test_two_folders_are_compared_without_any_model(tmp_path: Path) -> None:
    for name, noise in (("one", 0), ("two", 90)):
        write_digits(tmp_path / name, range(6), noise=noise)
    summary = evaluated(
        tmp_path / "out", str(tmp_path / "one"), f"{tmp_path / 'two'},name=noisy", prompts="digits", num_prompts=6
    )
    assert [(model["name"], model["role"]) for model in summary["models"]] == [
        ("noisy", "pictures"),
        ("one", "pictures"),
    ]
    assert {row["value"] for row in summary["scores"] if row["model"] == "one"} == {1.0}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>noisy, one</h1>" in page and "teacher</small>" not in page
    assert "| one | - | - | 1.000" in (tmp_path / "out" / "scores.md").read_text()


def test_given_pictures_stand_beside_a_model(tmp_path: Path) -> None:
    write_digits(tmp_path / "real", range(4))
    choices = {"num_prompts": 4, "models": ("fewstep:digits,steps=2",), "extras": Extras(ladder=(), strip_prompts=0)}
    summary = evaluated(
        tmp_path / "out", str(tmp_path / "real"), prompts="digits", teacher="fewstep:digits,steps=3", **choices
    )
    assert [model["role"] for model in summary["models"]] == ["student", "pictures", "teacher"]
    assert next(row for row in summary["scores"] if row["model"] == "real")["difference_interval"] is not None


def test_pictures_of_another_size_than_the_models_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "drawn", ("0.png", "1.png"), size=48)
    with pytest.raises(
        ConfigError, match=r"The pictures of digits and of drawn were .*: resolution \[32, 32\] and \[48, 48\]"
    ):
        evaluated(
            tmp_path / "out", str(tmp_path / "drawn"), prompts="digits", num_prompts=2, models=("fewstep:digits",)
        )


def test_the_originals_stay_when_the_evaluation_keeps_no_images(tmp_path: Path) -> None:
    pictures = write_digits(tmp_path / "real", range(3))
    before = [picture.path.read_bytes() for picture in pictures]
    evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="digits", num_prompts=3, save_images=False)
    assert [picture.path.read_bytes() for picture in pictures] == before
    assert list((tmp_path / "out").rglob("*.png")) == []


def test_other_pictures_under_a_known_name_are_refused(tmp_path: Path) -> None:
    write_digits(tmp_path / "real", range(3))
    evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="digits", num_prompts=3)
    write_digits(tmp_path / "real", range(3), noise=9)
    with pytest.raises(ConfigError, match=r"holds pictures with fingerprint .*another name: --pictures .*name=another"):
        evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="digits", num_prompts=3)


def test_pictures_without_their_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the prompts that they were drawn for; name those: --prompts FILE"):
        run_evaluation(Order(output=tmp_path / "o", pictures=("x",)), console=Console(quiet=True))


@pytest.mark.parametrize("place", [".", "./", "../real", "sub/.."])
def test_the_folder_where_one_stands_has_its_own_name(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "real", range(3))
    (tmp_path / "real" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "real")
    summary = evaluated(tmp_path / "out", place, prompts="digits", num_prompts=3)
    assert [model["name"] for model in summary["models"]] == ["real"]


@pytest.mark.parametrize("part", ["models", "models/real", "models/real/pictures", "models/real/scores"])
def test_a_link_in_an_evaluations_folder_is_not_written_through(part: str, tmp_path: Path) -> None:
    write_digits(tmp_path / "real", range(3))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / part).parent.mkdir(parents=True)
    (tmp_path / "out" / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{part} is a symbolic link.* written in its own folder only"):
        evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="digits", num_prompts=3)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_empty_name_of_prompts_is_not_the_default_set(tmp_path: Path) -> None:
    write_digits(tmp_path / "real", range(3))
    with pytest.raises(ConfigError, match="--prompts is '', which is no file and none of"):
        evaluated(tmp_path / "out", str(tmp_path / "real"), prompts="")
