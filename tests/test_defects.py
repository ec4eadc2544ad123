"""Mistakes of the published code that ours must not repeat, where no test of a part covers them.

docs/published-code.md lists all of them with their tests; the last test here checks that list.
"""

import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.backbones.registry import create_model_adapter
from fewstep.cli.main import execute
from fewstep.config.recipe import Recipe, load_recipe
from fewstep.core.schedules import RandomLengthSchedule
from fewstep.core.sigmas import UniformBelowQuery
from fewstep.data.embeddings import open_or_build
from fewstep.data.prompts import load_prompts
from fewstep.distributed.world import alone
from fewstep.errors import CheckpointError, ConfigError, NonFiniteError
from fewstep.export.export import export
from fewstep.roles.build import build_roles
from fewstep.runs.places import checkpoints
from fewstep.sampling.loaded import load_model
from fewstep.training.run import role_settings
from fewstep.training.trainer import Trainer
from tests.backbones import tiny
from tests.training.test_run import metrics
from tests.training.tiny_run import PROMPTS, recipe, run, write_inputs

ROOT = Path(__file__).parents[1]


def trainer_of(made: Recipe, folder: Path) -> Trainer:
    """A run's trainer before its first step."""
    config = made.config
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    embeddings = open_or_build(folder / "embeddings", adapter, load_prompts(config.prompts))
    roles = build_roles(adapter, role_settings(config), alone(torch.device("cpu")))
    return Trainer(config, adapter, roles, embeddings, torch.device("cpu"))


def weights(trainer: Trainer, role: str) -> dict[str, torch.Tensor]:
    """A copy of one role's weights, or of the average, as bits, so that equal NaNs are equal."""
    values = (
        trainer.export_weights() if role == "ema" else dict(getattr(trainer.roles, role).network.named_parameters())
    )
    return {name: value.detach().clone().view(torch.int32) for name, value in values.items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


# --- the run folder and its checkpoints


def test_a_trailing_slash_goes_on_with_the_same_run(tmp_path: Path) -> None:
    command = ["train", str(write_inputs(tmp_path)), "--output", f"{tmp_path / 'run'}/"]
    assert execute([*command, "budget.student_updates=1"]) == 0
    assert execute([*command, "budget.student_updates=2", "--resume"]) == 0
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1, 2, 3]


def test_a_trailing_slash_exports_the_checkpoint_it_names(tmp_path: Path) -> None:
    run(recipe(tmp_path, "budget.student_updates=2", "checkpoint.every=1"), tmp_path / "run")
    named = str(tmp_path / "run" / "checkpoints" / "step-00000002")
    exported = [export(name, tmp_path / f"out{i}").folder for i, name in enumerate((named, f"{named}/"))]
    files = [next((folder / "transformer").glob("*.safetensors")).read_bytes() for folder in exported]
    assert files[0] == files[1]


def test_the_last_step_is_saved_whatever_the_interval(tmp_path: Path) -> None:
    run(recipe(tmp_path, "checkpoint.every=2"), tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004", "step-00000006"]


def test_another_setting_is_another_run_folder_and_both_are_trained(tmp_path: Path) -> None:
    command = ["train", str(write_inputs(tmp_path)), "budget.student_updates=1", "--root", str(tmp_path / "runs")]
    assert [execute([*command, f"seed={seed}"]) for seed in (1, 2)] == [0, 0]
    assert len(list((tmp_path / "runs").glob("tiny-*/checkpoints/step-00000002"))) == 2


def test_nothing_secret_of_the_environment_reaches_a_run_or_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "not-to-be-told")
    run(recipe(tmp_path, "budget.student_updates=1", "report.trackers=[tensorboard]"), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    written = [path for folder in ("run", "out") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert [str(path) for path in written if b"not-to-be-told" in path.read_bytes()] == []


def test_an_export_does_not_tell_where_the_teacher_was(tmp_path: Path) -> None:
    run(recipe(tmp_path, "budget.student_updates=1"), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [str(path) for path in files if str(tmp_path).encode() in path.read_bytes()] == []


# --- the training


@pytest.mark.parametrize(
    ("role", "value"),
    [("student", float("nan")), ("student", float("-inf")), ("teacher", float("nan")), ("fake_score", float("inf"))],
)
def test_a_broken_weight_of_any_network_stops_the_run_before_the_student_moves(
    role: str, value: float, tmp_path: Path
) -> None:
    error, reason = (
        (CheckpointError, "The teacher .* predicts numbers that are not finite")
        if role == "teacher"
        else (NonFiniteError, "the run stopped before any weight moved")
    )
    trainer = trainer_of(recipe(tmp_path, "student.every=1", "budget.student_updates=1"), tmp_path)
    network = getattr(trainer.roles, role).network
    with torch.no_grad():
        network.proj_out.bias[0] = value
    before = {name: weights(trainer, name) for name in ("student", "ema")}
    with pytest.raises(error, match=reason):
        trainer.run_step()
    assert all(same(weights(trainer, name), before[name]) for name in before)
    assert trainer.step == trainer.student_updates == 0


def test_a_broken_student_leaves_the_fake_score_alone(tmp_path: Path) -> None:
    trainer = trainer_of(recipe(tmp_path), tmp_path)
    with torch.no_grad():
        trainer.roles.student.network.proj_out.bias[0] = float("nan")
    before = weights(trainer, "fake_score")
    with pytest.raises(NonFiniteError, match="in the update of the fake score, loss/fake_score is nan"):
        trainer.run_step()
    assert same(weights(trainer, "fake_score"), before)


class HostReads(TorchDispatchMode):
    """Counts values that are read from a tensor one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("health", "figures_of_health"), [("null", 0), ("{}", 8)])
def test_an_update_reads_its_figures_from_the_device_at_once(
    health: str, figures_of_health: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(recipe(tmp_path, "student.every=1", f"health={health}"), tmp_path)
    trainer.run_step()  # opens the files of the prompt embeddings
    lists: list[int] = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(tensor.numel()) or tolist(tensor))
    with HostReads() as single:
        report = trainer.run_step()
    assert single.count == 0
    # loss, request to stop and norm of the fake score; three losses and norm of the student
    assert lists == [3, 4 + figures_of_health]
    assert {name for name in report.figures if not name.startswith("health/")} == {
        *("loss/fake_score", "grad_norm/fake_score", "lr/fake_score"),
        *("loss/ca", "loss/dm", "loss/cdm", "grad_norm/student", "lr/student"),
    }


def test_master_weights_start_from_the_checkpoints_own_unrounded_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trainer = trainer_of(recipe(tmp_path, "precision.compute=bf16"), tmp_path)
    stored = load_file(tmp_path / "teacher" / "transformer" / "diffusion_pytorch_model.safetensors")
    for role in (trainer.roles.student, trainer.roles.fake_score):
        assert all(torch.equal(parameter, stored[name]) for name, parameter in role.network.named_parameters())
    assert all(value.dtype == torch.float32 for value in trainer.export_weights().values())


def test_the_teacher_is_held_in_the_compute_precision_and_is_not_trained(tmp_path: Path) -> None:
    teacher = trainer_of(recipe(tmp_path, "precision.compute=bf16"), tmp_path).roles.teacher
    assert {(p.dtype, p.requires_grad) for p in teacher.network.parameters()} == {(torch.bfloat16, False)}


def test_a_run_leaves_the_process_as_it_found_it(tmp_path: Path) -> None:
    made = recipe(tmp_path, "budget.student_updates=1", "parallel.threads=1")

    def state() -> dict[str, Any]:
        return {
            "dtype": torch.get_default_dtype(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
            "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
            "environment": dict(os.environ),
        }

    before = state()
    run(made, tmp_path / "run")
    after = state()
    assert {name for name, value in before.items() if value != after[name]} == set()


def test_the_step_does_not_depend_on_the_random_state_of_the_process(tmp_path: Path) -> None:
    made = recipe(tmp_path, "budget.student_updates=1")
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        random.seed(seed)
        run(made, tmp_path / name)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "two")


# --- the settings


def test_a_range_in_a_recipe_is_the_range_of_its_anchors() -> None:
    inner = "schedule.inner={law: uniform, low: 0.02, high: 0.98}"
    schedule = load_recipe("sd3-medium", [inner, "prompts={kind: demo}"]).config.schedule
    levels = schedule.sigmas(torch.linspace(0, 1, 11)[None], lambda level: level)[0]
    assert levels[1:].max().item() == pytest.approx(0.98)
    assert levels.min().item() == pytest.approx(0.02)


@pytest.mark.parametrize("name", ["sd3-medium", "digits"])
def test_the_probe_of_a_built_in_recipe_is_below_its_anchor_after_clamping_too(name: str) -> None:
    config = load_recipe(name, ["prompts={kind: demo}"]).config
    assert config.terms.ca is not None
    assert config.terms.ca.probe == UniformBelowQuery()
    assert isinstance(config.schedule, RandomLengthSchedule)
    # clamping lifts a probe to the range's lower bound, which no anchor lies below; a time shift moves anchors up
    assert config.schedule.inner.low > config.sigma_range.low


def test_a_run_without_a_fake_score_is_refused_with_the_setting() -> None:
    with pytest.raises(ConfigError, match="fake_score"):
        load_recipe("digits", ["fake_score=null"])


@pytest.mark.parametrize("wrong", ["fake_score.enabled=false", "random_sigma_min=0.02", "sample.global_std=1"])
def test_a_setting_without_effect_is_no_setting(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no setting {wrong.partition('.')[0].partition('=')[0]}"):
        load_recipe("digits", [wrong])


# --- drawing


def test_drawing_leaves_the_pipelines_scheduler_and_pictures_as_they_were(tmp_path: Path) -> None:
    folder = tiny.save(tiny.sd3_pipeline(t5=False), tmp_path / "teacher")
    model = load_model(folder, "cpu")
    before = dict(model.pipeline.scheduler.config)
    pictures = [model.latents(PROMPTS, [0] * 5, steps=3, guidance_scale=2.0) for _ in range(2)]
    model.latents(PROMPTS, [0] * 5, sigmas=[1.0, 0.5], guidance_scale=1.0)
    assert dict(model.pipeline.scheduler.config) == before
    assert torch.equal(pictures[0], pictures[1])


# --- the list of all of them

PAGE = ROOT / "docs" / "published-code.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (\d+)\w? \|(.*)\|$", re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), sorted(set(TEST.findall(PAGE.read_text(encoding="utf-8")))))
def test_a_test_named_by_the_list_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_list_has_every_number_and_a_test_in_each_row() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert {int(number) for number, _ in rows} == set(range(1, 38))
    assert [number for number, row in rows if not TEST.search(row)] == []
