import gc
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fewstep.backbones.sd3 import SD3Adapter
from fewstep.distributed.sharding import local
from fewstep.errors import CheckpointError, NonFiniteError
from fewstep.export.weights import read_student
from fewstep.runs.places import checkpoints
from fewstep.training import run as run_module
from fewstep.training.run import train
from fewstep.training.trainer import StepReport, Trainer
from tests.training.tiny_run import recipe, run, run_stopped_after, saved_state


def assert_same_state(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same, name


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


# before and after an update of the student, and where it stands last
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_run_stopped_at_any_step_and_resumed_equals_the_uninterrupted_run(
    stop_at: int, finished: Path, tmp_path: Path
) -> None:
    made = recipe(finished)
    run_stopped_after(made, tmp_path / "stopped", steps=stop_at)
    assert checkpoints(tmp_path / "stopped" / "checkpoints")[-1].name == f"step-{stop_at:08d}"
    run(made, tmp_path / "stopped", resume=True)
    assert_same_state(saved_state(tmp_path / "stopped"), saved_state(finished / "whole"))
    assert metrics(tmp_path / "stopped") == metrics(finished / "whole")


def test_a_checkpoint_says_which_settings_and_versions_made_it(finished: Path) -> None:
    made = recipe(finished)
    about = json.loads((checkpoints(finished / "whole" / "checkpoints")[-1] / "manifest.json").read_text())["about"]
    assert about["config"] == made.config.model_dump(mode="json")
    assert about["session"]["packages"]["torch"] == torch.__version__


def test_a_run_that_is_asked_tells_its_predicted_and_measured_memory(tmp_path: Path) -> None:
    said = io.StringIO()
    made = recipe(tmp_path, "budget.student_updates=1", "report.memory=true")
    train(made, output=tmp_path / "run", console=Console(file=said, width=200))
    told = [line for line in said.getvalue().splitlines() if "predicted" in line]
    assert (len(told) == 1 and "MiB" in told[0]) or "GiB" in told[0]


def test_resume_starts_when_there_is_nothing_to_resume(tmp_path: Path) -> None:
    folder = run(recipe(tmp_path, "budget.student_updates=1"), tmp_path / "run", resume=True)
    assert len(metrics(folder.path)) == 2


def test_a_longer_budget_goes_on_in_the_same_run(finished: Path, tmp_path: Path) -> None:
    run(recipe(finished, "budget.student_updates=1"), tmp_path / "run")
    run(recipe(finished), tmp_path / "run", resume=True)
    assert_same_state(saved_state(tmp_path / "run"), saved_state(finished / "whole"))


def test_a_run_of_the_old_layout_goes_on_with_less_memory_and_gives_the_same_losses(
    finished: Path, tmp_path: Path
) -> None:
    run_stopped_after(recipe(finished), tmp_path / "run", steps=3)
    written = tmp_path / "run" / "config.json"
    config = json.loads(written.read_text())
    memory = config.pop("memory")
    config["gradient_checkpointing"] = memory.pop("gradient_checkpointing")
    config["savings"] = {name: memory.pop(name) for name in ("keep_anchor_graph", "batch_frozen_calls")}
    config["parallel"] |= memory
    written.write_text(json.dumps(config))
    less = ["memory.gradient_checkpointing=true", "memory.microbatch=1", "memory.batch_frozen_calls=false"]
    run(recipe(finished, *less), tmp_path / "run", resume=True)
    for ours, theirs in zip(metrics(tmp_path / "run"), metrics(finished / "whole"), strict=True):
        assert {k: pytest.approx(v, rel=1e-4) for k, v in theirs.items()} == ours


def test_ctrl_c_saves_before_it_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.run_step

    def interrupted(trainer: Trainer, **asked: bool) -> StepReport:
        report = step(trainer, **asked)
        os.kill(os.getpid(), signal.SIGINT)
        return report

    monkeypatch.setattr(Trainer, "run_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(tmp_path), tmp_path / "run")
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step-00000001"


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_stop_while_prompts_are_embedded_leaves_no_run_behind(
    number: signal.Signals, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = SD3Adapter.encode

    def stopped(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return encode(*arguments)

    monkeypatch.setattr(SD3Adapter, "encode", stopped)
    with pytest.raises(error):
        run(recipe(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_moves_the_student_and_the_fake_score_and_never_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Trainer] = []
    build = run_module._build_trainer
    monkeypatch.setattr(run_module, "_build_trainer", lambda *a: seen.append(build(*a)) or seen[0])
    run(recipe(tmp_path), tmp_path / "run")
    from diffusers import SD3Transformer2DModel

    original = SD3Transformer2DModel.from_pretrained(tmp_path / "teacher" / "transformer").state_dict()
    roles = seen[0].roles
    moved = {
        role: [
            n
            for n, p in getattr(roles, role).network.named_parameters()
            if not torch.equal(local(p.detach()), original[n])
        ]
        for role in ("student", "teacher", "fake_score")
    }
    assert moved["teacher"] == []
    assert len(moved["student"]) == len(moved["fake_score"]) == len(list(roles.student.network.parameters()))


@pytest.mark.parametrize("kept", ["null", "true"])
def test_splitting_the_batch_gives_the_losses_and_weights_of_the_whole(
    kept: str, finished: Path, tmp_path: Path
) -> None:
    run(recipe(finished, "memory.microbatch=3", f"memory.keep_anchor_graph={kept}"), tmp_path / "split")
    for ours, theirs in zip(metrics(tmp_path / "split"), metrics(finished / "whole"), strict=True):
        assert {k: pytest.approx(v, rel=1e-4) for k, v in theirs.items()} == ours
    split, whole = saved_state(tmp_path / "split"), saved_state(finished / "whole")
    for name, value in whole.items():
        if name.startswith(("student.", "fake_score.", "ema.")):
            # AdamW turns rounding of near-zero gradients into steps of up to lr; three updates of 1e-3
            assert (split[name] - value).abs().max() < 6e-3, name
            assert (split[name] - value).norm() <= 1e-3 * value.norm() + 1e-4, name


@pytest.mark.parametrize("saving", ["keep_anchor_graph", "batch_frozen_calls"])
def test_switching_a_saving_off_gives_the_same_losses(saving: str, finished: Path, tmp_path: Path) -> None:
    run(recipe(finished, f"memory.{saving}=false"), tmp_path / "off")
    for ours, theirs in zip(metrics(tmp_path / "off"), metrics(finished / "whole"), strict=True):
        assert {k: pytest.approx(v, rel=1e-4) for k, v in theirs.items()} == ours


def test_gradient_checkpointing_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    run(recipe(finished, "memory.gradient_checkpointing=true"), tmp_path / "checkpointed")
    assert metrics(tmp_path / "checkpointed") == metrics(finished / "whole")


def test_a_step_leaves_no_tensor_that_only_the_collector_would_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the command may look for garbage rarely without holding more memory."""
    tensors, run_step = [], Trainer.run_step

    def counted(trainer: Trainer, **asked: bool) -> StepReport:
        report = run_step(trainer, **asked)
        tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
        return report

    monkeypatch.setattr(Trainer, "run_step", counted)
    made = recipe(tmp_path, "memory.gradient_checkpointing=true")
    gc.disable()
    try:
        run(made, tmp_path / "run")
    finally:
        gc.enable()
    # the first update of each role makes its moments
    assert len(tensors) == 6 and set(tensors[2:]) == {tensors[2]}


def test_bf16_compute_keeps_float32_weights_that_move_at_small_learning_rates(tmp_path: Path) -> None:
    bf16 = ("precision.compute=bf16", "student.lr=1e-5", "student.warmup=0", "budget.student_updates=2")
    run(recipe(tmp_path, *bf16, "checkpoint.every=1"), tmp_path / "run")
    start, end = saved_state(tmp_path / "run", 0), saved_state(tmp_path / "run", -1)
    names = [name for name in end if name.startswith("student.") and "pos_embed.pos_embed" not in name]
    assert all(end[name].dtype == torch.float32 for name in names)
    moved = sum((end[name] != start[name]).sum().item() for name in names) / sum(end[name].numel() for name in names)
    assert moved > 0.9  # the last block's unused query has no gradient; bf16 masters moved 3 %


def test_a_non_finite_loss_stops_the_run_before_any_weight_moves_and_names_the_term(tmp_path: Path) -> None:
    write = recipe(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = tmp_path / "teacher" / "transformer" / "diffusion_pytorch_model.safetensors"
    run(write, tmp_path / "run")
    before = saved_state(tmp_path / "run")
    tensors = load_file(weights)
    tensors["proj_out.bias"][0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    longer = recipe(tmp_path, "budget.student_updates=5")
    with pytest.raises(NonFiniteError) as caught:
        run(longer, tmp_path / "run", resume=True)
    message = str(caught.value)
    assert "loss/ca is nan and loss/dm is nan" in message and "Step 7: in the update of the student" in message
    assert_same_state(saved_state(tmp_path / "run"), before)


def test_sample_sheets_show_the_teacher_over_the_student(tmp_path: Path) -> None:
    made = recipe(tmp_path, "report.sheet_every=1", "report.sheet_prompts=2", "budget.student_updates=2")
    folder = run(made, tmp_path / "run")
    from PIL import Image

    sheets = [Image.open(folder.sheets / f"update-{update:06d}.png") for update in (1, 2)]
    assert [sheet.size for sheet in sheets] == [(32, 32)] * 2
    pixels = [torch.tensor(list(sheet.tobytes()), dtype=torch.uint8).reshape(32, 32, 3) for sheet in sheets]
    assert torch.equal(pixels[0][:16], pixels[1][:16]) and not torch.equal(pixels[0][16:], pixels[1][16:])


def test_the_student_of_a_run_is_its_average(finished: Path) -> None:
    weights = read_student(finished / "whole").weights.all()
    state = saved_state(finished / "whole")
    assert all(torch.equal(value, state[f"ema.{name}"]) for name, value in weights.items())
    assert any(not torch.equal(value, state[f"student.{name}"]) for name, value in weights.items())


def test_a_run_without_an_average_exports_its_weights(tmp_path: Path) -> None:
    run(recipe(tmp_path, "student.ema=null", "budget.student_updates=1"), tmp_path / "run")
    weights = read_student(tmp_path / "run").weights.all()
    state = saved_state(tmp_path / "run")
    assert weights and all(torch.equal(value, state[f"student.{name}"]) for name, value in weights.items())


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path, "budget.student_updates=1")
    run(made, tmp_path / "run")
    (found,) = checkpoints(tmp_path / "run" / "checkpoints")
    found.rename(found.with_name("step-00000001"))
    with pytest.raises(CheckpointError, match=r"holds step 2, which is not the one of its name; .*-00000002"):
        run(made, tmp_path / "run", resume=True)
