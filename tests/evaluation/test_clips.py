"""A whole evaluation of tiny models of videos: clips are drawn, scored frame by frame, and shown."""

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fewstep.backbones import create_model_adapter
from fewstep.errors import ConfigError
from fewstep.evaluation.folder import EvaluationFolder, Extras
from fewstep.evaluation.models import resolve
from fewstep.evaluation.report_pictures import tile
from fewstep.evaluation.samplers import Sampler, open_sampler
from fewstep.evaluation.session import Order, run_evaluation
from fewstep.export import export_student
from fewstep.sampling.model_spec import parse_spec
from tests.backbones import tiny, tiny_cogvideox, tiny_wan
from tests.evaluation.pictures import NO_EXTRAS
from tests.evaluation.tiny_models import moved, write_embedded_student

FEW = Extras(ladder=(1,), ladder_prompts=1, strip_seeds=2, strip_prompts=1)
SETTINGS = {name: {"extractor": "digits"} for name in ("kid", "vendi", "consistency")}
METRICS = ("digits", "flicker", "consistency", "kid", "vendi")
FRAMES = 5


def write_models(folder: Path, pipeline: Any, **config: Any) -> tuple[str, str]:
    """A student of clips of 32 x 32 pixels, and its teacher as it is to be drawn; spec of each."""
    teacher = tiny.save(pipeline, folder / "teacher")
    plain = create_model_adapter(teacher).config.model_dump() | {"height": 32, "width": 32, **config}
    adapter = create_model_adapter(teacher, create_model_adapter(teacher).config_class.model_validate(plain))
    student = export_student(adapter, moved(adapter.load_network(), by=0.02), folder / "student", levels=(1.0, 0.5))
    frames = config["frames"]
    return str(student.folder), f"{teacher},steps=2,height=32,width=32,frames={frames}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("wan")
    return write_models(folder, tiny_wan.wan_pipeline(), frames=FRAMES, max_sequence_length=24)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a red handwritten three\na blue handwritten seven\na green handwritten one\n")
    return str(path)


def evaluate(output: Path, models: tuple[str, str], prompts: str, **choices: Any) -> dict[str, Any]:
    student, teacher = models
    asked = {"metrics": METRICS, "settings": SETTINGS, "extras": NO_EXTRAS, "device": "cpu", **choices}
    order = Order(output=output, models=(student,), teacher=teacher, prompts=prompts, **asked)
    summary = run_evaluation(order, console=Console(quiet=True))
    assert summary is not None
    return summary


@pytest.fixture(scope="module")
def finished(models: tuple[str, str], prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    evaluate(output, models, prompts, seeds=(0, 1), extras=FEW)
    return output


def rows_of(output: Path, **wanted: str) -> list[dict[str, str]]:
    with (output / "pictures.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


def test_a_clip_is_drawn_as_one_file_for_each_frame(finished: Path) -> None:
    for model in ("student", "teacher"):
        drawn = sorted((finished / "models" / model / "pictures").glob("00000.seed1.steps2.*"))
        assert [path.name for path in drawn] == [
            f"00000.seed1.steps2.frame{number:04d}.png" for number in range(FRAMES)
        ]


def test_every_metric_measures_student_and_teacher_with_intervals_over_prompts(finished: Path) -> None:
    summary = json.loads((finished / "scores.json").read_text())
    cells = {(row["model"], row["figure"]): row for row in summary["scores"]}
    assert {figure for _, figure in cells} == {*METRICS, "vendi_per_prompt"}
    # three prompts, two seeds: all frames, all pairs of neighbours, and the middle frames alone
    counts = {"digits": 6 * FRAMES, "flicker": 6 * (FRAMES - 1), "consistency": 6 * FRAMES, "kid": 6, "vendi": 6}
    assert {figure: cells["student", figure]["n"] for figure in counts} == counts
    assert all(cell["interval"] is not None for (_, figure), cell in cells.items() if figure in ("digits", "flicker"))


def test_a_prompts_score_is_the_mean_over_its_frames(finished: Path) -> None:
    summary = json.loads((finished / "scores.json").read_text())
    folder = finished / "models" / "student" / "pictures"
    steps = []
    for prompt in range(3):
        for seed in (0, 1):
            paths = [folder / f"{prompt:05d}.seed{seed}.steps2.frame{number:04d}.png" for number in range(FRAMES)]
            clip = np.stack([np.asarray(Image.open(path), dtype=float) for path in paths])
            steps.append(np.abs(np.diff(clip, axis=0)).mean())
    (cell,) = [row for row in summary["scores"] if (row["model"], row["figure"]) == ("student", "flicker")]
    assert cell["value"] == pytest.approx(1 - np.mean(steps) / 255, rel=1e-9)


def test_a_score_says_which_frame_it_is_of(finished: Path) -> None:
    found = rows_of(finished, model="student", metric="digits", prompt_id="00001", seed="0")
    assert [row["frame"] for row in found] == [str(number) for number in range(FRAMES)]


def test_the_protocol_says_how_frames_enter(finished: Path) -> None:
    summary = json.loads((finished / "scores.json").read_text())
    told = {known["metric"]["name"]: known["frames"]["looked_at"] for known in summary["protocols"].values()}
    assert told == {"digits": "all", "flicker": "all", "consistency": "all", "kid": "middle", "vendi": "middle"}
    assert {known["frames"]["of_a_clip"] for known in summary["protocols"].values()} == {FRAMES}


def test_other_frames_are_another_protocol(models: tuple[str, str], prompts: str, finished: Path) -> None:
    choices: dict[str, Any] = {"phase": "score", "seeds": (0, 1)}
    before = json.loads((finished / "scores.json").read_text())["protocol"]
    evaluate(finished, models, prompts, metrics=("digits",), settings={"digits": {"frames": "three"}}, **choices)
    three = json.loads((finished / "scores.json").read_text())
    assert {known["frames"]["looked_at"] for known in three["protocols"].values()} == {"three"}
    assert len(rows_of(finished, model="student")) == 6 * 3
    assert evaluate(finished, models, prompts, **choices)["protocol"] == before


def test_the_report_shows_a_clip_as_a_row_of_three_frames(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert f"Clips have {FRAMES} frames, and a prompt's score is the mean over its frames." in page.replace(
        "&#x27;", "'"
    )
    assert page.count('<figure class="tile clip">') > 10
    assert "not drawn" not in page


def test_a_row_is_the_first_the_middle_and_the_last_frame(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(FRAMES)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 4), (50 * number, 0, 0)).save(path)
    (encoded,) = re.findall(r"base64,([^\"]*)", tile(paths, "clip"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert shown.shape == (4, 24, 3)
    assert shown[0, ::8, 0].tolist() == [0, 100, 200]


def test_a_clip_that_lacks_a_frame_is_drawn_again_and_comes_out_the_same(
    models: tuple[str, str], prompts: str, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"metrics": ("digits",), "settings": {}, "num_prompts": 2}
    whole = evaluate(tmp_path, models, prompts, **few)
    lost = tmp_path / "models" / "student" / "pictures" / "00001.seed0.steps2.frame0003.png"
    before = lost.read_bytes()
    lost.write_bytes(before[: len(before) // 2])
    assert evaluate(tmp_path, models, prompts, **few)["scores"] == whole["scores"]
    assert lost.read_bytes() == before


def test_a_frame_that_was_changed_by_hand_is_scored_again_with_the_one_after_it(
    models: tuple[str, str], prompts: str, tmp_path: Path
) -> None:
    evaluate(tmp_path, models, prompts, metrics=("flicker",), settings={})
    folder = EvaluationFolder(tmp_path)
    (record,) = [record for record in folder.records() if record.entry.role == "student"]
    paths = folder.picture_paths(record.entry, folder.read_task().prompts.items[0], 0, 2)
    before = {row["frame"]: row["score"] for row in rows_of(tmp_path, model="student", prompt_id="00000")}
    Image.new("RGB", (32, 32)).save(paths[2])
    evaluate(tmp_path, models, prompts, metrics=("flicker",), settings={}, phase="score")
    after = {row["frame"]: row["score"] for row in rows_of(tmp_path, model="student", prompt_id="00000")}
    assert {frame for frame in before if before[frame] != after[frame]} == {"2", "3"}


@pytest.mark.parametrize(("batch", "together"), [(None, 1), (2, 2)])
def test_clips_go_through_a_network_one_by_one_unless_told_otherwise(
    models: tuple[str, str],
    prompts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int | None,
    together: int,
) -> None:
    seen: set[int] = set()
    sample = Sampler.sample

    def counted(sampler: Sampler, texts: Sequence[str], *arguments: Any, **named: Any) -> Any:
        seen.add(len(texts))
        return sample(sampler, texts, *arguments, **named)

    monkeypatch.setattr(Sampler, "sample", counted)
    evaluate(tmp_path, models, prompts, metrics=("flicker",), settings={}, num_prompts=2, batch=batch)
    assert seen == {together}


def test_cogvideox_is_measured_too(prompts: str, tmp_path: Path) -> None:
    models = write_models(tmp_path, tiny_cogvideox.cogvideox_pipeline(tokens=226), frames=9)
    summary = evaluate(tmp_path / "eval", models, prompts, metrics=("flicker",), settings={}, num_prompts=1)
    assert {(cell["figure"], cell["n"]) for cell in summary["scores"]} == {("flicker", 8)}


def test_clips_and_pictures_are_not_compared(models: tuple[str, str], prompts: str, tmp_path: Path) -> None:
    pictures = str(write_embedded_student(tmp_path / "digits"))
    with pytest.raises(ConfigError, match=r"measured under different protocols .*frames null and \{.of_a_clip.: 5"):
        evaluate(tmp_path / "eval", (pictures, models[1]), prompts, metrics=("digits",), settings={})


def test_metrics_of_clips_refuse_models_of_pictures(prompts: str, tmp_path: Path) -> None:
    pictures = str(write_embedded_student(tmp_path / "digits"))
    with pytest.raises(ConfigError, match="flicker compares the frames of a clip, and here are single pictures"):
        evaluate(tmp_path / "eval", (pictures, "fewstep:digits,steps=4"), prompts)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ("frames=6", r"6 frames do not fit .* the nearest below are 5"),
        ("frames=1000000", r"sets frames to '1000000': Input should be less than or equal to 1000"),
    ],
)
def test_frames_that_cannot_be_drawn_are_refused_before_weights_are_loaded(
    models: tuple[str, str], frames: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(parse_spec(f"{models[0]},{frames}"), "student")


def test_frames_of_a_model_of_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"makes pictures, and --model gives it frames=5; leave that out"):
        resolve(parse_spec("fewstep:digits,frames=5"), "student")


def test_a_model_of_videos_has_the_frames_that_its_files_say(models: tuple[str, str]) -> None:
    student, teacher = models
    assert resolve(parse_spec(student), "student").sampling.frames == FRAMES
    assert resolve(parse_spec(teacher.partition(",")[0]), "teacher").sampling.frames == 81


def test_clips_of_another_length_than_asked_for_are_told(models: tuple[str, str]) -> None:
    spec = parse_spec(models[1])
    entry = resolve(spec, "teacher")
    # as of a pipeline that no backbone serves, which rounds what it is asked for
    asked = entry.model_copy(update={"sampling": entry.sampling.model_copy(update={"frames": 6})})
    sampler = open_sampler(spec, asked, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"makes clips of 5 frames where 6 were asked for; .*--model MODEL,frames=5"):
        sampler.sample(["a red cat"], [0], steps=1)


def test_a_model_that_no_backbone_serves_says_its_frames_or_is_told_them(tmp_path: Path) -> None:
    folder = tiny.save(tiny_cogvideox.cogvideox_pipeline(), tmp_path / "5b")
    network = folder / "transformer" / "config.json"
    network.write_text(json.dumps(json.loads(network.read_text()) | {"use_rotary_positional_embeddings": True}))
    spec = f"{folder},height=32,width=32"
    with pytest.raises(ConfigError, match=r"does not say its frames; say it: --model .*,frames=VALUE"):
        resolve(parse_spec(spec), "teacher")
    assert resolve(parse_spec(f"{spec},frames=9"), "teacher").sampling.frames == 9
