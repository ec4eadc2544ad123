"""Requests carried out: what is drawn, what is written, and what the files say."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fewstep
from fewstep.errors import ConfigError
from fewstep.sampling import Drawing, load_model, sample
from fewstep.sampling.drawing import sample_lines
from fewstep.sampling.metadata import model_title
from fewstep.sampling.model_spec import ModelSpec
from fewstep.sampling.request import drawing_of
from tests.backbones import lora_files, tiny, tiny_vp
from tests.sampling.test_loaded import census_of

PROMPTS = ["a red cat", "two blue dogs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("drawing") / "teacher")


def read(path: Path) -> tuple[dict[str, Any], str]:
    """What a PNG says of itself."""
    with Image.open(path) as image:
        image.load()
        texts = {str(key): str(text) for key, text in image.info.items()}
    return json.loads(texts["fewstep"]), texts.get("parameters", "")


def test_a_picture_says_how_it_was_drawn(folder: Path, tmp_path: Path) -> None:
    network = load_model(folder, "cpu").network
    own = lora_files.factors(network, lora_files.layers_of(network, ("to_q",)))
    lora = lora_files.diffusers_file(tmp_path / "style.safetensors", {"transformer": own})
    prompt = "a röd cat, 猫\nat sea"
    sample(
        folder,
        prompt,
        sigmas=[1.0, 0.5],
        seed=7,
        guidance_scale=4.5,
        negative_prompt="blurred: a, b",
        size="16x24",
        lora=f"{lora}:0.5",
        device="cpu",
        output=tmp_path / "cat.png",
    )
    told, parameters = read(tmp_path / "cat.png")
    assert told == {
        "fewstep": fewstep.__version__,
        "prompt": prompt,
        "seed": 7,
        "model": "teacher",
        "negative_prompt": "blurred: a, b",
        "steps": 2,
        "sigmas": [1.0, 0.5],
        "step": "euler",
        "guidance_scale": 4.5,
        "height": 16,
        "width": 24,
        "lora": [{"file": "style.safetensors", "scale": 0.5}],
        "dtype": "fp32",
    }
    assert parameters == (
        "a röd cat, 猫\nat sea\nNegative prompt: blurred: a, b\nSteps: 2, Sampler: Euler, CFG scale: 4.5, Seed: 7, "
        f'Size: 24x16, Model: teacher, Lora: "style.safetensors:0.5", Version: fewstep {fewstep.__version__}'
    )
    assert str(tmp_path) not in (tmp_path / "cat.png").read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("owner/name", "owner/name"),
        ("fewstep:digits", "fewstep:digits"),
        ("/home/me/models/mine/", "mine"),
        (r"C:\Users\me\mine", "mine"),
        ("./mine", "mine"),
        ("~/mine", "mine"),
        ("a/b/mine", "mine"),
    ],
)
def test_no_path_is_written(place: str, name: str) -> None:
    assert model_title(place) == name


def test_a_request_draws_what_its_arguments_draw(folder: Path) -> None:
    (plain,) = sample(folder, "a red cat", steps=1, seed=7, size=(16, 24), device="cpu")
    spec = ModelSpec(model=str(folder), steps=1, height=16, width=24)
    (asked,) = sample(Drawing(model=spec, seed=7, device="cpu"), "a red cat")
    (worded,) = sample(f"{folder},steps=1,height=16,width=24", "a red cat", seed=7, device="cpu")
    assert plain.size == (24, 16)
    assert plain.tobytes() == asked.tobytes() == worded.tobytes()


@pytest.mark.parametrize("more", [{"batch": 1}, {"offload": True}, {"dtype": "bf16"}])
def test_how_it_is_computed_changes_a_picture_by_rounding_only(folder: Path, more: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"steps": 1, "guidance_scale": 1.0, "device": "cpu"}
    plain, other = sample(folder, PROMPTS, **asked), sample(folder, PROMPTS, **asked, **more)
    allowed = 12 if "dtype" in more else 1  # of 255; bfloat16 has eight bits
    for first, second in zip(plain, other, strict=True):
        assert max(abs(a - b) for a, b in zip(first.tobytes(), second.tobytes(), strict=True)) <= allowed


def test_sigmas_beyond_the_training_of_a_model_are_refused(tmp_path: Path) -> None:
    tiny.save(tiny_vp.sd_pipeline(), tmp_path / "sd15")
    with pytest.raises(ConfigError, match=r"The sigmas begin at 1, but .* was trained up to 0\.9\d* only; begin there"):
        sample(tmp_path / "sd15", "a cat", sigmas=[1.0, 0.5], device="cpu")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"device": "typo"}, "--device typo cannot be used here"),
        ({"grid": True}, "A sheet is written to a file; name it with output"),
        ({"grid": True, "output": "a.gif"}, r"A sheet is a \.png file, and the output is .*a\.gif"),
        ({"grid": True, "compare": "m", "output": "a.png"}, "compare makes one sheet of its own, so grid has nothing"),
        ({"lora": "nowhere.safetensors"}, "There is no LoRA nowhere.safetensors: give a safetensors file"),
        ({"size": "18x16"}, "18 x 16 pixels do not fit"),
        ({"compare": "m,steps=x", "output": "a.png"}, "--compare 'm,steps=x' sets steps to 'x'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_weights_are_read(
    folder: Path, more: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fewstep.sampling.drawing.load_model", None)
    with pytest.raises(ConfigError, match=message):
        sample(folder, "a cat", **{"device": "cpu", **more})


def test_a_grid_is_one_sheet_of_the_pictures(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    images = sample(folder, PROMPTS, steps=1, seed=7, device="cpu", output=output, grid=True)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    sheet = Image.open(output)
    assert sheet.crop((24, 0, 40, 16)).tobytes() == images[1].tobytes()
    told, _ = read(output)
    assert (told["prompts"], told["seed"], told["models"][0]["model"]) == (PROMPTS, 7, "teacher")


def test_two_models_are_drawn_the_same_prompts_and_seed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "both.png"
    first, second, *others = sample(
        folder,
        PROMPTS,
        steps=2,
        seed=7,
        size="16x24",
        device="cpu",
        compare=f"{folder},steps=1,name=one step",
        output=output,
    )
    alone = sample(folder, PROMPTS, steps=1, seed=7, size="16x24", device="cpu")
    assert [one.tobytes() for one in others] == [one.tobytes() for one in alone]
    assert first.tobytes() != others[0].tobytes() and second.size == (24, 16)
    told, _ = read(output)
    assert [(one["model"], one["steps"]) for one in told["models"]] == [("teacher", 2), ("teacher", 1)]


def test_a_grid_that_was_rounded_above_one_is_told_and_warmed_up_from_one(tmp_path: Path) -> None:
    student = tiny.save(tiny.sd3_pipeline(), tmp_path / "student")
    facts = {"role": "student", "backbone": "sd3", "height": 16, "width": 16, "sigmas": [1.0000001192092896, 0.5]}
    (student / "fewstep.json").write_text(json.dumps(facts))
    sample(student, "a red cat", device="cpu", compare=str(student), output=tmp_path / "p.png")
    told, _ = read(tmp_path / "p.png")
    assert [one["sigmas"] for one in told["models"]] == [[1.0, 0.5], [1.0, 0.5]]


def test_of_two_models_one_is_in_memory_at_a_time(folder: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"steps": 1, "device": "cpu", "compare": f"{folder},steps=2", "output": tmp_path / "p.png"}
    seen = census_of(lambda: sample(folder, "a red cat", **asked))
    assert {one["network"] for one in seen} == {one["VAE"] for one in seen} == {1}


def test_progress_is_told_for_every_network_call(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    sample(folder, PROMPTS, steps=2, batch=1, device="cpu", progress=lambda *said: told.append(said))
    assert told == [("teacher", done, 4) for done in (1, 2, 3, 4)]


@pytest.fixture
def lines(folder: Path, tmp_path: Path) -> Any:
    drawn: list[tuple[str, str]] = []
    refusals: list[str] = []

    def draw(*texts: bytes, **said: Any) -> tuple[list[tuple[str, str]], list[str]]:
        drawn.clear()
        refusals.clear()
        drawing = drawing_of(folder, {"steps": 1, "device": "cpu", **said})
        sample_lines(
            drawing,
            texts,
            tmp_path / "p.png",
            drawn=lambda path, text: drawn.append((path.name, text)),
            refused=lambda error: refusals.append(str(error)),
        )
        return drawn, refusals

    return draw


def test_each_line_is_drawn_as_it_is_alone(folder: Path, tmp_path: Path, lines: Any) -> None:
    drawn, refusals = lines(b"a red cat\r\n", b"\n", b"two blue dogs")
    assert (drawn, refusals) == ([("p-0000.png", "a red cat"), ("p-0001.png", "two blue dogs")], [])
    alone = [sample(folder, prompt, steps=1, device="cpu")[0].tobytes() for prompt in PROMPTS]
    assert [Image.open(tmp_path / name).tobytes() for name, _ in drawn] == alone
    assert read(tmp_path / "p-0001.png")[0]["prompt"] == "two blue dogs"


def test_a_line_that_is_no_prompt_is_told_and_the_next_one_is_drawn(lines: Any) -> None:
    drawn, refusals = lines(b"a\xffb\n", b"a\0b\n", b"a cat\n")
    assert drawn == [("p-0000.png", "a cat")]
    assert [refusal.partition(" has ")[0].partition(" (")[0] for refusal in refusals] == [
        "Line 1 is not UTF-8",
        "Line 2",
    ]


def test_lines_never_write_over_a_picture(tmp_path: Path, lines: Any) -> None:
    (tmp_path / "p-0000.png").write_bytes(b"mine")
    assert lines(b"a cat\n")[0] == [("p-0001.png", "a cat")]
    assert (tmp_path / "p-0000.png").read_bytes() == b"mine"


def test_lines_keep_the_model_in_memory(lines: Any) -> None:
    with pytest.raises(ConfigError, match="--stdin keeps the model in memory and --offload does not"):
        lines(b"a cat\n", offload=True)
