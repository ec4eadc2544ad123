"""Runs that go wrong and say so, each signal in one of its own; one that goes well and is quiet; what an alarm does."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from fewstep.cli.main import execute
from fewstep.config.recipe import load_recipe
from fewstep.errors import CheckpointError, ConfigError, Exit, UnhealthyError
from fewstep.health.guard import SIGNALS, GuardState
from fewstep.runs.places import checkpoints, completed_steps
from fewstep.runs.saving import save_checkpoint
from fewstep.training.guarding import stored_health
from fewstep.training.run import train
from tests.backbones import tiny
from tests.training.test_run import assert_same_state, metrics
from tests.training.tiny_run import pipeline, recipe, run, saved_state

WATCHED = "health={start: 2, window: 3}"
PROBED = "health={start: 2, window: 3, probe: {every: 1, prompts: 3, seeds: 2}}"
AT_ONCE = ("student.warmup=0", "fake_score.warmup=0")
# a fake score that stays the teacher: nothing holds guidance back
FROZEN = "fake_score={lr: 1.0e-12, warmup: 0, align: null}"
# a hundred and ten times the rates of the tiny run
FAST = ("student.lr=0.1", "fake_score.lr=1e-2", *AT_ONCE)


# guidance ten times as strong at a rate that rises: pictures are healthy at first and swerve little by little
SWERVING = ("terms.ca.scale=20", "student.lr=1e-2", "student.warmup=10")
SWERVE_PROBE = "probe: {every: 1, prompts: 3, seeds: 2}"


def figures(folder: Path) -> list[dict[str, float]]:
    """What metrics.jsonl says of each step, its lines put together."""
    steps: dict[int, dict[str, float]] = {}
    for line in metrics(folder):
        steps.setdefault(int(line["step"]), {}).update(line)
    return [steps[step] for step in sorted(steps)]


def fired(folder: Path) -> set[str]:
    prefix = "health/fires/"
    return {name.removeprefix(prefix) for line in metrics(folder) for name in line if name.startswith(prefix)}


def stripped(folder: Path) -> list[dict[str, Any]]:
    lines = [{name: value for name, value in line.items() if "health/" not in name} for line in metrics(folder)]
    return [line for line in lines if "num_anchors" in line]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("health")
    recipe(folder)
    return folder


@pytest.fixture(scope="module")
def quiet(inputs: Path) -> Path:
    calm = ("student.lr=1e-4", "fake_score.lr=4e-4", "budget.student_updates=7", PROBED.replace("every: 1", "every: 3"))
    said = io.StringIO()
    train(recipe(inputs, *calm), output=inputs / "quiet", console=Console(file=said, width=1000))
    (inputs / "quiet.txt").write_text(said.getvalue())
    return inputs / "quiet"


def test_a_run_that_goes_well_is_quiet_though_every_signal_is_looked_at(quiet: Path) -> None:
    told = {name.removeprefix("health/") for line in figures(quiet) for name in line}
    assert set(SIGNALS) <= told
    assert fired(quiet) == set()
    assert "Warning" not in (quiet.parent / "quiet.txt").read_text()
    about = json.loads((checkpoints(quiet / "checkpoints")[-1] / "manifest.json").read_text())["about"]
    assert about["health"]["healthy"] is True and about["health"]["firing"] == []


@pytest.mark.parametrize(
    ("signals", "settings"),
    [
        pytest.param(
            {"norm/dm", "norm/cdm", "grad_norm/student", "grad_norm/fake_score", "fake_lag"},
            (*FAST, "budget.student_updates=5", "health={start: 1, window: 3}"),
            id="rates a hundred times as high",
        ),
        pytest.param(
            {"fake_lag"},
            ("student.lr=1e-2", "fake_score={lr: 1.0e-5, warmup: 0, align: null}", "budget.student_updates=5", WATCHED),
            id="a fake score that hardly learns",
            marks=pytest.mark.slow,
        ),
        pytest.param({"dm_to_ca"}, (FROZEN, "budget.student_updates=5", WATCHED), id="a frozen fake score"),
        pytest.param(
            {"cosine"},
            ("terms.ca.probe_of=query", "terms.dm={guidance_scale: 0, probe_of: query}", FROZEN,
             "budget.student_updates=5", WATCHED),
            id="dm that asks for the opposite of ca",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"floored"},
            ("terms.ca.floor=100", "terms.dm.floor=100", "terms.cdm.floor=100", "budget.student_updates=5", WATCHED),
            id="a floor above every error",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"contrast", "saturation"},
            ("terms.ca.scale=20", "student.lr=1e-2", "budget.student_updates=5", PROBED),
            id="ca ten times as long",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_run_that_goes_wrong_fires(
    signals: set[str], settings: tuple[str, ...], inputs: Path, tmp_path: Path
) -> None:
    run(recipe(inputs, *settings), tmp_path / "run")
    assert signals <= fired(tmp_path / "run")


def test_a_constant_added_to_a_channel_is_a_cast(inputs: Path, tmp_path: Path) -> None:
    model = tiny.save(pipeline(), tmp_path / "yellow")
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    channels = tensors["proj_out.bias"].numel() // 4  # of 2 x 2 patches, the channel last
    tensors["proj_out.bias"][1::channels] -= 1.0
    save_file(tensors, weights, metadata={"format": "pt"})
    shifted = f"student.init={{model: {model}}}"
    run(recipe(inputs, shifted, "student.lr=1e-6", "budget.student_updates=2", PROBED), tmp_path / "run")
    assert fired(tmp_path / "run") == {"cast"}


@pytest.mark.slow
# drawn in one step, a student that has not learnt to gives the mean of its prompt's digits; in four it does not
@pytest.mark.parametrize(("levels", "signals"), [("[1.0]", {"diversity"}), ("[1.0, 0.9, 0.75, 0.5]", set())])
def test_seeds_that_give_one_picture_are_told(levels: str, signals: set[str], tmp_path: Path) -> None:
    made = load_recipe(
        "digits",
        [
            *("batch=4", "schedule.max_steps=2", "budget.student_updates=2", "report.sheet_every=null"),
            *(f"sampling={{levels: {levels}, teacher_steps: 8, teacher_guidance_scale: 1.5}}", "student.lr=1e-6"),
            "health={probe: {every: 1, prompts: 4, seeds: 2}}",
        ],
    )
    run(made, tmp_path / "run")
    assert "diversity" in fired(tmp_path / "run") or not signals, figures(tmp_path / "run")[-1]
    assert signals or "diversity" not in fired(tmp_path / "run"), figures(tmp_path / "run")[-1]


def test_until_it_acts_health_changes_no_bit_of_losses_and_weights(finished: Path, tmp_path: Path) -> None:
    run(recipe(finished, PROBED), tmp_path / "run")
    assert stripped(tmp_path / "run") == stripped(finished / "whole")
    assert_same_state(saved_state(tmp_path / "run"), saved_state(finished / "whole"))


def test_a_run_that_is_to_stop_saves_and_ends_with_its_own_code_until_it_is_told_to_go_on(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (FROZEN, "student.warmup=0", "budget.student_updates=5")
    command = ["train", str(inputs / "tiny.yaml"), *settings, "--output", str(tmp_path / "run")]
    stop = "health={window: 3, action: {kind: stop}}"
    assert execute([*command, stop]) == Exit.UNHEALTHY == 3
    said = capsys.readouterr().err.splitlines()[-1]
    # where the two networks' rounding differs, the distance is no zero, and the lag of nearly nothing is told first
    first = r"health/(dm_to_ca is [\d.e-]+|fake_lag is [\d.e+]+) at student update 3, (below|above) "
    assert re.match(f"fewstep: The run was saved at step 6 and stopped. {first}", said)
    assert said.endswith("Start a new run so, or go on as it is with --resume and health.action.kind=warn.")
    assert execute([*command, stop, "--resume"]) == 3  # it is no better
    assert completed_steps(checkpoints(tmp_path / "run" / "checkpoints")[-1]) == 8
    assert execute([*command, "health={window: 3}", "--resume"]) == 0


@pytest.fixture(scope="module")
def rewound(inputs: Path) -> Path:
    """A run that swerves and goes back; the same without that is in ``on``."""
    settings = (*SWERVING, "budget.student_updates=8")
    run(recipe(inputs, *settings, f"health={{{SWERVE_PROBE}}}"), inputs / "on")
    said = io.StringIO()
    health = f"health={{{SWERVE_PROBE}, action: {{kind: rewind, lower_lr: 0.05, most: 3}}}}"
    made = recipe(inputs, *settings, "checkpoint={every: 1, keep_last: 2}", health)
    train(made, output=inputs / "rewound", console=Console(file=said, width=1000))
    (inputs / "rewound.txt").write_text(said.getvalue())
    return inputs / "rewound"


@pytest.mark.slow
def test_a_run_that_goes_back_ends_better_than_the_one_that_goes_on(rewound: Path) -> None:
    back, on = figures(rewound)[-1], figures(rewound.parent / "on")[-1]
    assert back["health/cast"] < 0.5 * on["health/cast"]
    assert back["health/contrast"] < 1.3 < on["health/contrast"]


@pytest.mark.slow
def test_a_run_that_goes_back_says_where_it_was_and_how_fast_it_goes_on(rewound: Path) -> None:
    rewinds = json.loads((rewound / "rewinds.json").read_text())
    last, factor = rewinds[-1], 0.05 ** len(rewinds)
    back, away = last["to_step"], last["from_step"]
    assert 0 < back < away and back % 2 == 0 and last["lr_factor"] == pytest.approx(factor)
    assert (
        f"Went back from step {away} to {back}, the last healthy checkpoint, because of health/{last['signal']}; "
        f"from here the learning rates are {factor:g} times the recipe's ({len(rewinds)} of 3)."
    ) in (rewound.parent / "rewound.txt").read_text()
    steps = figures(rewound)
    assert [line["step"] for line in steps] == list(range(16))
    assert steps[back - 1]["health/rewound_from"] == away
    assert steps[back - 1]["health/lr_factor"] == pytest.approx(factor)
    assert steps[back + 1]["lr/student"] == pytest.approx(factor * 1e-3 * (back / 2 + 1))
    assert steps[back]["lr/fake_score"] == pytest.approx(factor * 1e-3)


@pytest.mark.slow
def test_a_resume_keeps_the_lower_rates(rewound: Path, inputs: Path) -> None:
    factor = json.loads((rewound / "rewinds.json").read_text())[-1]["lr_factor"]
    run(recipe(inputs, *SWERVING, "budget.student_updates=9", "health={}"), rewound, resume=True)
    assert figures(rewound)[-1]["lr/student"] == pytest.approx(9e-3 * factor)


@pytest.mark.parametrize(
    ("settings", "health", "said"),
    [
        (
            (*FAST, "checkpoint.every=1"),
            "{start: 1, window: 3,",
            r"stopped after going back once\. (health|grad_norm)/",
        ),
        ((FROZEN, "checkpoint.every=5"), "{window: 1,", "stopped, without a healthy checkpoint to go back to"),
    ],
)
def test_a_run_that_cannot_go_back_stops(
    settings: tuple[str, ...], health: str, said: str, inputs: Path, tmp_path: Path
) -> None:
    action = f"health={health} action: {{kind: rewind, lower_lr: 0.99, most: 1}}}}"
    with pytest.raises(UnhealthyError, match=said):
        run(recipe(inputs, *settings, "budget.student_updates=5", action), tmp_path / "run")


@pytest.mark.parametrize("said", [3, {"watches": {"cast": {"recent": "often"}}}])
def test_a_checkpoint_that_says_of_health_what_nobody_knows_is_told(said: object, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path, {"progress": {"step": 1}}, step=1, keep_last=1, about={"health": said})
    with pytest.raises(CheckpointError, match=r"step-00000001 says of its run's health what .*health=null"):
        stored_health(checkpoint)


def test_a_checkpoint_from_before_health_was_looked_at_is_healthy(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path, {"progress": {"step": 1}}, step=1, keep_last=1)
    assert stored_health(checkpoint) == stored_health(None) == GuardState()


def test_going_back_without_checkpoints_is_refused_before_anything_runs(inputs: Path) -> None:
    with pytest.raises(ConfigError, match=r"health\.action is rewind, but checkpoint\.every is null"):
        recipe(inputs, "checkpoint.every=null", "health={action: {kind: rewind}}")
