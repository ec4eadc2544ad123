"""One, two and four processes compute the same run: losses, gradient norms and weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fewstep.distributed.rounds import rounds
from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.methods.draws import Draws, Streams
from tests.distributed.families import ONE_OF_EACH, WEIGHTS
from tests.distributed.scenarios import BOTH_LORA, COMMON, MODES, SPREAD, part_of
from tests.training.test_run import assert_same_state, metrics
from tests.training.tiny_run import recipe, run, saved_state

CASES = [
    pytest.param(size, name, marks=[pytest.mark.slow] if part_of(name, size) == "more" else [])
    for size, scenarios in SPREAD.items()
    for name in scenarios
]
# of losses and gradient norms after a few updates: float32 sums in another order; a loss of 1e-7 is a small difference
RELATIVE = 2e-5
Launch = Callable[[int, str], Path]


@pytest.fixture(scope="module")
def alone(shared: Path) -> Callable[[str], Path]:
    """The run of a mode on one process; several tests compare with it."""

    def made(mode: str) -> Path:
        folder = shared / f"{mode}-1"
        with FileLock(f"{folder}.lock"):  # another worker may be at it
            if not (folder / "checkpoints" / "latest").exists():
                run(recipe(shared, *COMMON, *MODES[mode]), folder, resume=True)
        return folder

    return made


def require(folder: Path, name: str, size: int) -> Path:
    """The folder of a scenario, which must not have failed."""
    failures = [path.read_text() for path in sorted(folder.glob(f"{name}-{size}.rank*.error"))]
    assert not failures, failures[0]
    return folder / f"{name}-{size}"


def assert_same_run(ours: Path, theirs: Path) -> None:
    for line, expected in zip(metrics(ours), metrics(theirs), strict=True):
        assert line == {name: pytest.approx(value, rel=RELATIVE, abs=1e-9) for name, value in expected.items()}
    state, expected_state = saved_state(ours), saved_state(theirs)
    assert state.keys() == expected_state.keys()
    for name, value in expected_state.items():
        if name.startswith(("student.", "fake_score.", "ema.")):
            assert (state[name] - value).abs().max() < 1e-6, name


@pytest.mark.parametrize(("size", "name"), CASES)
def test_the_number_of_processes_changes_nothing(
    size: int, name: str, launched: Launch, alone: Callable[[str], Path]
) -> None:
    folder = require(launched(size, part_of(name, size)), name, size)
    assert_same_run(folder, alone(SPREAD[size][name][0]))


def test_four_processes_stand_at_unequal_anchors_and_make_equal_calls(tmp_path: Path) -> None:
    """So the runs on four also show that no process waits for a call that another one does not make."""
    config, size = recipe(tmp_path, *COMMON).config, 4
    unequal = 0
    for step in range(config.budget.student_updates * config.student.every):
        drawn = []
        for rank in range(size):
            rows = rounds(config.batch, rank=rank, size=size, microbatch=None)[0]
            own, streams = {"positions": rows.own, "concurrent": rows.concurrent, "terms": None}, Streams(config.seed)
            drawn.append(Draws.for_step(streams, step, schedule=config.schedule, latent_shape=(1,), **own))
        unequal += len({max(part.anchor) for part in drawn}) > 1
        assert len({part.num_simulation_calls for part in drawn}) == 1
    assert unequal > 0


@pytest.mark.parametrize(("name", "overrides"), [("half", ()), ("half-lora", BOTH_LORA)])
def test_a_run_saved_on_two_processes_goes_on_alone(
    name: str, overrides: tuple[str, ...], launched: Launch, alone: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    shared = launched(2, "quick")
    shutil.copytree(require(shared, name, 2), tmp_path / "run")
    run(recipe(shared, *COMMON, *overrides), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", alone("lora" if overrides else "full"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_saved_on_two_processes_goes_on_on_four(
    mode: str, launched: Launch, alone: Callable[[str], Path]
) -> None:
    name = "resumed" if mode == "full" else "resumed-lora"
    assert_same_run(require(launched(4, "more"), name, 4), alone(mode))


def test_two_processes_resume_bitwise(launched: Launch) -> None:
    shared = launched(2, "quick")
    assert_same_state(saved_state(require(shared, "again", 2)), saved_state(require(shared, "full", 2)))


@pytest.mark.parametrize("mode", ["full", pytest.param("lora-checkpointed", marks=pytest.mark.slow)])
def test_gathering_ahead_changes_no_bit(mode: str, launched: Launch) -> None:
    ours, theirs = (require(launched(2, part_of(name, 2)), name, 2) for name in (f"{mode}-prefetched", mode))
    assert metrics(ours) == metrics(theirs)
    assert_same_state(saved_state(ours), saved_state(theirs))


def test_two_processes_paint_the_sheets_of_one(launched: Launch, alone: Callable[[str], Path]) -> None:
    from PIL import Image

    ours, theirs = (
        [Image.open(path) for path in sorted((folder / "sheets").glob("*.png"))]
        for folder in (require(launched(2, "quick"), "watched", 2), alone("watched"))
    )
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        difference = max(abs(a - b) for a, b in zip(mine.tobytes(), other.tobytes(), strict=True))
        assert difference <= 1  # of 255: rounding


def test_only_the_factors_are_saved(launched: Launch) -> None:
    state: dict[str, Any] = saved_state(require(launched(2, "quick"), "lora", 2))
    trained = [name for name in state if name.startswith(("student.", "fake_score.", "ema."))]
    assert trained and all(".lora_A." in name or ".lora_B." in name for name in trained)


def test_a_student_of_two_processes_is_exported_on_one(launched: Launch, tmp_path: Path) -> None:
    for name in ("full", "lora"):
        done = export(require(launched(2, "quick"), name, 2), tmp_path / name)
        assert (done.folder / "transformer" / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("mode", WEIGHTS)
@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_family_trains_on_two_processes(kind: str, mode: str, launched: Launch) -> None:
    folder = launched(2, "more")
    require(folder, f"{kind}.{mode}", 2)
    figures = json.loads((folder / f"{kind}.{mode}.figures").read_text())
    assert len(figures) == 2
    assert all(step["grad_norm/student"] > 0 and step["grad_norm/fake_score"] > 0 for step in figures)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("shard=3", "parallel.shard is 3, but 1 processes were started"),
        ("replicate=2", "parallel.replicate is 2, but 1 processes were started"),
    ],
)
def test_an_arrangement_of_other_processes_is_refused(setting: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(recipe(tmp_path, f"parallel.{setting}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
