"""A run's newest checkpoint becomes a pipeline."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fewstep.backbones import create_model_adapter
from fewstep.config.recipe import load_recipe
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export.export import export
from fewstep.export.weights import Kept
from fewstep.runs.folder import RunFolder
from fewstep.runs.saving import save_checkpoint
from tests.backbones import tiny

NUM_STEPS = 6


def weights(folder: Path, value: float) -> dict[str, Tensor]:
    network = create_model_adapter(folder).load_network()
    return {name: torch.full_like(parameter, value).detach() for name, parameter in network.named_parameters()}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(t5=False), tmp_path_factory.mktemp("run") / "teacher")


@pytest.fixture
def run(teacher: Path, tmp_path: Path) -> RunFolder:
    return made(teacher, tmp_path)


def made(teacher: Path, tmp_path: Path, *overrides: str) -> RunFolder:
    size = ["backbone.height=16", "backbone.width=24", "backbone.max_sequence_length=1"]
    grid = "sampling.levels=[1.0, 0.75, 0.5, 0.25]"
    recipe = load_recipe("digits", [f"backbone.model={teacher}", grid, *size, *overrides])
    with RunFolder.create(tmp_path / "runs", "digits", recipe.config) as folder:
        folder.checkpoints.mkdir(exist_ok=True)
        return folder


def checkpoint(run: RunFolder, teacher: Path, step: int, *, ema: float | None, student: float) -> Path:
    state = {"student": weights(teacher, student), "progress": {"step": step}}
    if ema is not None:
        state["ema"] = weights(teacher, ema)
    return save_checkpoint(run.checkpoints, state, step=step, keep_last=5)


def exported_value(folder: Path) -> float:
    network = create_model_adapter(folder, as_teacher=False).load_network()
    values = {float(value) for parameter in network.parameters() for value in parameter.detach().unique()}
    assert len(values) == 1
    return values.pop()


def test_average_of_the_newest_checkpoint_is_exported(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    done = export(run.path, tmp_path / "student")
    assert exported_value(done.folder) == 0.25


def test_student_is_exported_where_no_average_was_kept(teacher: Path, tmp_path: Path) -> None:
    run = made(teacher, tmp_path, "student.ema=null")
    checkpoint(run, teacher, NUM_STEPS, ema=None, student=0.75)
    assert exported_value(export(run.path, tmp_path / "student").folder) == 0.75


def test_an_average_that_is_missing_is_an_error_and_not_replaced(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=None, student=0.75)
    with pytest.raises(CheckpointError, match="weights are missing"):
        export(run.path, tmp_path / "student")


def test_one_checkpoint_can_be_chosen(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    earlier = checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    assert exported_value(export(earlier, tmp_path / "student").folder) == 0.125


@pytest.mark.parametrize(("step", "value"), [(4, 0.125), ("4", 0.125), ("best", 0.125), ("last", 0.25)])
def test_a_step_names_a_checkpoint_of_the_run(
    step: int | str, value: float, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    (run.checkpoints / "best").write_text("step-00000004\n")
    assert exported_value(export(run.path, tmp_path / "student", step=step).folder) == value


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (5, "has no checkpoint 5; it has 4, 6, and last is 6"),
        ("final", "has no checkpoint final; it has 4, 6, and last is 6"),
        (
            "best",
            r"has no checkpoint best \(evaluation.keep_best names the metric that decides\); it has 4, 6, and last",
        ),
    ],
)
def test_a_step_that_is_not_there_lists_those_that_are(
    step: int | str, said: str, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    for number in (4, NUM_STEPS):
        checkpoint(run, teacher, number, ema=0.25, student=0.75)
    with pytest.raises(ConfigError, match=said):
        export(run.path, tmp_path / "student", step=step)
    assert not (tmp_path / "student").exists()


def test_a_step_beside_a_checkpoint_has_nothing_to_choose(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    kept = checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    with pytest.raises(ConfigError, match=r"is one checkpoint already, so step \(best\) has nothing to choose"):
        export(kept, tmp_path / "student", step="best")


@pytest.mark.parametrize(("weights", "value"), [("ema", 0.25), ("raw", 0.75)])
def test_the_average_or_the_weights_themselves_are_exported(
    weights: Kept, value: float, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    done = export(run.path, tmp_path / "student", weights=weights)
    assert exported_value(done.folder) == value
    told = {"ema": "| averaged | decay 0.", "raw": "| averaged | no |"}[weights]
    assert told in (done.folder / "README.md").read_text()


def test_an_average_that_no_run_kept_is_refused(teacher: Path, tmp_path: Path) -> None:
    run = made(teacher, tmp_path, "student.ema=null")
    checkpoint(run, teacher, NUM_STEPS, ema=None, student=0.75)
    with pytest.raises(ConfigError, match=r"kept no average of its student .* with --weights raw"):
        export(run.path, tmp_path / "student", weights="ema")


def test_a_weight_beyond_half_precision_is_refused(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=70000.0, student=0.5)
    with pytest.raises(ConfigError, match=r"holds 70000, and fp16 ends at 65504; export the student with --dtype bf16"):
        export(run.path, tmp_path / "student", dtype="fp16")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_are_written_in_the_precision_that_is_asked(
    dtype: str, stored: torch.dtype, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.5)
    done = export(run.path, tmp_path / "student", dtype=dtype)
    file = next((done.folder / "transformer").glob("*.safetensors"))
    assert {value.dtype for value in load_file(file).values()} == {stored}
    assert f"dtype={stored}" in done.stock_call


def test_a_checkpoint_under_another_number_is_refused(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    kept = checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    kept.rename(kept.with_name("step-00000400"))
    with pytest.raises(CheckpointError, match=r"step-00000400 holds step 4, .* name back, step-00000004, or"):
        export(run.path, tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("name", ["step-4", "final", "step-00000004 (copy)"])
def test_a_checkpoint_under_no_checkpoints_name_is_not_overlooked(
    name: str, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    kept = checkpoint(run, teacher, 4, ema=0.125, student=0.5)
    kept.rename(kept.with_name(name))
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} is a checkpoint, but that is no checkpoint's name"):
        export(run.path, tmp_path / "student")
    checkpoint(run, teacher, 6, ema=0.25, student=0.5)
    assert exported_value(export(run.path, tmp_path / "student").folder) == 0.25


def test_card_names_the_run(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    text = (export(run.path, tmp_path / "student").folder / "README.md").read_text()
    assert "| recipe | digits |" in text
    assert "| student updates | 3 |" in text  # two fake-score updates per student update
    assert "| teacher | teacher |" in text
    assert str(tmp_path.parent) not in text


def test_result_prints_where_it_is_and_how_to_draw(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    done = export(run.path, tmp_path / "student")
    assert str(done) == (
        f"Read again from the written files and drawn: {done.difference}.\n"
        f"The student is in {tmp_path / 'student'}. Draw with it in plain diffusers:\n\n{done.stock_call}"
    )
    assert "num_inference_steps=4,\n    guidance_scale=1.0,\n" in done.stock_call  # the scheduler has the grid
    assert "height=16,\n    width=24,\n    max_sequence_length=1,\n" in done.stock_call
    assert (
        f'from_pretrained("{tmp_path / "student"}", dtype=torch.float32, text_encoder_3=None, tokenizer_3=None)'
        in done.stock_call
    )


def test_run_without_a_checkpoint_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no checkpoint to export yet; go on with it with --resume"):
        export(run.path, tmp_path / "student")


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        export(tmp_path, tmp_path / "student")


def test_damaged_checkpoint_is_refused_and_nothing_is_written(run: RunFolder, teacher: Path, tmp_path: Path) -> None:
    saved = checkpoint(run, teacher, NUM_STEPS, ema=0.25, student=0.75)
    data = next(saved.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"{data.name} holds"):
        export(run.path, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_output_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="student exists and is not an empty folder"):
        export(tmp_path / "no-run", tmp_path / "student")
