"""The generate phase on tiny real models: same pictures whatever the batch, the rank or the interruption."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fewstep.errors import CheckpointError, ConfigError
from fewstep.evaluation.folder import EvaluationFolder, Extras, Task
from fewstep.evaluation.generate import generate, in_batches, requests, strip_seeds
from fewstep.evaluation.models import ModelEntry, resolve
from fewstep.evaluation.progress import progress_bar
from fewstep.evaluation.ranks import Ranks
from fewstep.sampling import load_model
from fewstep.sampling.model_spec import ModelSpec, parse_spec
from fewstep.testing.closeness import assert_same_pictures
from tests.evaluation.pictures import task_of
from tests.evaluation.tiny_models import write_student, write_teacher

TASK = task_of("a red cat", "two blue dogs", "the sea", seeds=(0, 1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_student(write_teacher(folder / "teacher"), folder / "student")
    return folder


def chosen(models: Path, *texts: str) -> list[tuple[ModelSpec, ModelEntry]]:
    specs = [parse_spec(f"{models}/{text}") for text in texts]
    return [(spec, resolve(spec, "student")) for spec in specs]


def draw(
    path: Path, models: list[tuple[ModelSpec, ModelEntry]], *, task: Task = TASK, batch: int = 4
) -> EvaluationFolder:
    folder = EvaluationFolder(path)
    generate(folder, task, models, batch=batch, ranks=Ranks(), console=Console(quiet=True), device="cpu")
    return folder


def pixels(folder: EvaluationFolder, task: Task, name: str) -> np.ndarray:
    record = folder.record(name)
    assert record is not None
    return np.stack([np.asarray(picture.image(), dtype=int) for picture in folder.pictures(task, record)])


def test_a_picture_is_the_one_that_sample_draws(models: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path, chosen(models, "student"))
    drawn = pixels(folder, TASK, "student")
    prompts = [item.text for item in TASK.prompts.items for _ in TASK.seeds]
    direct = load_model(models / "student", "cpu").images(prompts, [0, 1] * 3, steps=4, batch=4)
    assert_same_pictures(drawn, np.stack([np.asarray(image, dtype=int) for image in direct]))


def test_a_picture_does_not_depend_on_the_batch(models: Path, tmp_path: Path) -> None:
    alone = draw(tmp_path / "alone", chosen(models, "student"), batch=1)
    together = draw(tmp_path / "together", chosen(models, "student"), batch=6)
    difference = np.abs(pixels(alone, TASK, "student") - pixels(together, TASK, "student"))
    # the noise is the same to the bit; matrix products of other sizes round the last bit of a float otherwise
    assert difference.max() <= 1


def test_pictures_of_one_prompt_differ_by_their_seed(models: Path, tmp_path: Path) -> None:
    drawn = pixels(draw(tmp_path, chosen(models, "student")), TASK, "student")
    assert np.abs(drawn[0] - drawn[1]).max() > 10


def test_an_interrupted_phase_goes_on_and_ends_with_the_same_bytes(models: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path, chosen(models, "student"), batch=2)
    files = sorted((tmp_path / "models" / "student" / "pictures").glob("*.png"))
    before = {file.name: file.read_bytes() for file in files}
    kept = {file: file.stat().st_mtime_ns for file in files[:2]}
    for file in files[3:]:
        file.unlink()
    draw(tmp_path, chosen(models, "student"), batch=2)
    assert {file.name: file.read_bytes() for file in files} == before
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    record = folder.record("student")
    assert record is not None
    assert record.complete


@pytest.mark.parametrize("left", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_is_not_whole_is_drawn_again(models: Path, tmp_path: Path, left: bytes) -> None:
    draw(tmp_path, chosen(models, "student"), batch=2)
    torn = sorted((tmp_path / "models" / "student" / "pictures").glob("*.png"))[3]
    before = torn.read_bytes()
    torn.write_bytes(left)
    draw(tmp_path, chosen(models, "student"), batch=2)
    assert torn.read_bytes() == before


def test_a_finished_phase_loads_no_model(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, chosen(models, "student"))

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("fewstep.evaluation.generate.open_sampler", refuse)
    draw(tmp_path, chosen(models, "student"))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_ranks_draw_the_same_batches_as_one_process(models: Path, world: int) -> None:
    ((_, entry),) = chosen(models, "student")
    batches = in_batches(requests(EvaluationFolder(Path("x")), TASK, entry), 2)
    shares = [Ranks(rank, world).share(batches) for rank in range(world)]
    drawn = [tuple(request.paths for request in batch) for share in shares for batch in share]
    assert sorted(drawn) == sorted(tuple(request.paths for request in batch) for batch in batches)


def test_the_calls_of_the_network_are_counted(models: Path, tmp_path: Path) -> None:
    texts = ("student", "teacher,steps=3,guidance_scale=2,height=16,width=16")
    folder = draw(tmp_path, chosen(models, *texts))
    counted = {record.entry.name: record.calls_per_picture for record in folder.records()}
    assert counted == {"student": 4, "teacher": 6}


def test_the_calls_are_known_when_only_other_steps_were_left_to_draw(models: Path, tmp_path: Path) -> None:
    task = task_of("a red cat", extras=Extras(ladder=(2,), ladder_prompts=1, strip_prompts=0))
    folder = draw(tmp_path, chosen(models, "student"), task=task)
    (ladder,) = folder.model_folder("student").glob("pictures/*steps2.png")
    ladder.unlink()
    (folder.model_folder("student") / "model.json").unlink()  # as if it had been stopped before
    (record,) = draw(tmp_path, chosen(models, "student"), task=task).records()
    assert record.calls_per_picture == 4


def test_the_ladder_and_the_strip_are_drawn_once_each(models: Path, tmp_path: Path) -> None:
    extras = Extras(ladder=(1, 2, 4), ladder_prompts=2, strip_seeds=4, strip_prompts=1)
    task = task_of("a red cat", "two blue dogs", "the sea", extras=extras)
    ((_, entry),) = models_entry = chosen(models, "student")
    folder = draw(tmp_path, models_entry, task=task)
    files = {file.name for file in (tmp_path / "models" / "student" / "pictures").glob("*.png")}
    # three prompts, two rungs of two prompts beside the model's own four steps, three further seeds
    assert len(files) == len(requests(folder, task, entry)) == 3 + 4 + 3
    assert {"00001.seed0.steps1.png", "00000.seed3.steps4.png"} <= files
    assert strip_seeds(task) == (0, 1, 2, 3)


def test_more_steps_draw_another_picture_from_the_same_noise(models: Path, tmp_path: Path) -> None:
    extras = Extras(ladder=(1, 8), ladder_prompts=1, strip_prompts=0)
    folder = draw(tmp_path, chosen(models, "student"), task=task_of("a red cat", extras=extras))
    item = task_of("a red cat").prompts.items[0]
    entry = folder.records()[0].entry
    one, eight = (Image.open(folder.picture_paths(entry, item, 0, steps)[0]) for steps in (1, 8))
    assert np.abs(np.asarray(one, dtype=int) - np.asarray(eight, dtype=int)).max() > 0


def test_stated_sigmas_are_followed(models: Path, tmp_path: Path) -> None:
    texts = ("student,name=own", "student,name=same,sigmas=1/0.9/0.75/0.5", "student,name=other,sigmas=1/0.5/0.3/0.1")
    folder = draw(tmp_path, chosen(models, *texts))
    own, same, other = (pixels(folder, TASK, name) for name in ("own", "same", "other"))
    # the exported grid is the same four numbers, to the rounding of a float
    assert np.abs(own - same).max() <= 1
    assert np.abs(own - other).max() > 1


def test_another_size_is_drawn(models: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path, chosen(models, "student,height=24,width=8"))
    assert pixels(folder, TASK, "student").shape[1:3] == (24, 8)


def test_pictures_drawn_otherwise_are_not_mixed(models: Path, tmp_path: Path) -> None:
    draw(tmp_path, chosen(models, "student"))
    with pytest.raises(
        ConfigError, match=r"holds pictures with sampling steps 4 instead of 2; choose another --output"
    ):
        draw(tmp_path, chosen(models, "student,steps=2"))


def test_other_prompts_do_not_go_into_the_same_folder(models: Path, tmp_path: Path) -> None:
    draw(tmp_path, chosen(models, "student"))
    with pytest.raises(ConfigError, match=r"holds an evaluation of other prompts; choose another --output"):
        draw(tmp_path, chosen(models, "student"), task=task_of("else", seeds=(0, 1)))


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", "[" * 100_000, '{"items": 3}'])
def test_a_damaged_plan_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"evaluation.json is damaged: .*; draw into another --output"):
        EvaluationFolder(tmp_path).read_task()
    with pytest.raises(CheckpointError, match=r"evaluation.json is damaged: .*; choose another --output"):
        EvaluationFolder(tmp_path).write_task(task_of("a cat"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "../../x"}, "items.0.id is '../../x'"),
        ({"text": "another"}, "its prompts are not those that were drawn"),
    ],
)
def test_a_plan_whose_prompts_were_changed_is_refused(change: dict[str, str], reason: str, tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.write_task(task_of("a cat"))
    assert folder.read_task() == task_of("a cat")
    task = json.loads(folder.file.read_text())
    task["items"][0].update(change)
    folder.file.write_text(json.dumps(task))
    with pytest.raises(CheckpointError, match=f"evaluation.json is damaged: {reason}"):
        folder.read_task()


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", "[" * 100_000])
def test_a_damaged_record_of_a_model_is_named(text: str, tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path)
    folder.model_folder("student").mkdir(parents=True)
    (folder.model_folder("student") / "model.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model.json is damaged: .*; draw that model again"):
        folder.records()


def test_a_record_about_another_folder_is_refused(models: Path, tmp_path: Path) -> None:
    draw(tmp_path, chosen(models, "student"))
    folder = EvaluationFolder(tmp_path)
    folder.model_folder("student").rename(folder.model_folder("other"))
    with pytest.raises(CheckpointError, match="it is about 'student'; give the folder that name"):
        folder.records()


def test_pictures_of_another_tool_are_told_how_they_are_scored(tmp_path: Path) -> None:
    (tmp_path / "0001.JPG").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"pictures such as '0001\.JPG' .* another tool drew with: fewstep evaluate --pictures"
    ):
        EvaluationFolder(tmp_path).read_task()


def test_a_process_gets_a_device_of_its_own_where_there_are_several() -> None:
    assert Ranks(3, 8, local=3).device("cpu") == torch.device("cpu")
    assert Ranks(3, 8, local=3).device("cuda") == torch.device("cuda", 3)


def test_what_is_left_to_do_is_told_without_a_terminal(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = EvaluationFolder(tmp_path)
    draw(tmp_path, chosen(models, "student"), batch=2)
    for picture in folder.pictures(TASK, folder.records()[0])[:2]:
        picture.path.unlink()
    generate(folder, TASK, chosen(models, "student"), batch=2, ranks=Ranks(), console=Console(), device="cpu")
    assert "Drawing student: 2 of 6 images to do" in capsys.readouterr().out


def test_a_terminal_shows_images_per_second_and_the_time_left() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with progress_bar(console, "Drawing student", 4, done=1) as advance:
        advance(1)
        time_before = shown.getvalue()
        advance(2)
    assert "Drawing student" in shown.getvalue()
    assert "4/4" in shown.getvalue()
    assert "images/s" in shown.getvalue()
    assert "0:00:00" in shown.getvalue()
    assert "4/4" not in time_before


def test_prompts_that_are_too_long_are_counted_once(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "a very long story of a cat that went to the sea and came home again, twice, and slept"
    with caplog.at_level("WARNING", logger="fewstep"):
        draw(
            tmp_path,
            chosen(models, "student"),
            task=task_of("a red cat", long, f"{long} well", seeds=(0, 1)),
            batch=1,
        )
    told = [record.getMessage().partition(" than ")[0] for record in caplog.records if "are cut" in record.getMessage()]
    assert told == ["2 of 3 prompts are longer"]
