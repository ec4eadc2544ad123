"""Where figures go besides metrics.jsonl. trackio and wandb are stand-ins that note what they are asked.

What the libraries themselves make of that is in test_real_trackers.py.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewstep.config.run_config import TrackerName
from fewstep.errors import ConfigError
from fewstep.runs.folder import RunFolder
from fewstep.training.run import train
from fewstep.training.trackers import TrackedRun, Trackers, require_trackers, tracked_run
from tests.training.tiny_run import recipe, run

Calls = list[tuple[str, Any]]


class Fake(ModuleType):
    """Both libraries in one: ``init`` answers with itself, whose ``log`` and ``finish`` are the module's in trackio."""

    def __init__(self, name: str, failing: dict[str, Exception] | None = None) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: Calls = []
        self.failing = failing or {}

    def _note(self, call: str, told: Any) -> None:
        self.calls.append((call, told))
        if call in self.failing:
            raise self.failing[call]

    def init(self, **settings: Any) -> "Fake":
        self._note("init", settings)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self._note("log", (step, figures))

    def finish(self) -> None:
        self._note("finish", None)


Install = Callable[..., Fake]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def put(name: str, **failing: Exception) -> Fake:
        fake = Fake(name, failing)
        monkeypatch.setitem(sys.modules, name, fake)
        return fake

    # set, so that what a tracker puts there is taken away again
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    return put


def tracked(folder: Path, first_step: int = 0, start: int = 1) -> TrackedRun:
    return TrackedRun("digits-1a2b3c4d", "digits-1a2b3c4d-20261129", {"batch": 4}, folder, first_step, start)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_every_figure_at_its_step(tmp_path: Path) -> None:
    trackers = Trackers(["tensorboard"], tracked(tmp_path), pytest.fail)
    trackers.log(0, {"loss/ca": 0.5})
    trackers.log(1, {"loss/ca": 0.25, "loss/dm": 2.0})
    trackers.end()
    assert scalars(tmp_path) == {"loss/ca": [(0, 0.5), (1, 0.25)], "loss/dm": [(1, 2.0)]}


def test_tensorboard_drops_the_steps_that_a_resumed_run_writes_again(tmp_path: Path) -> None:
    for first, values in ((0, [1.0, 2.0, 3.0]), (1, [20.0, 30.0])):
        trackers = Trackers(["tensorboard"], tracked(tmp_path, first), pytest.fail)
        for step, value in enumerate(values, first):
            trackers.log(step, {"loss/ca": value})
        trackers.end()
    assert scalars(tmp_path) == {"loss/ca": [(0, 1.0), (1, 20.0), (2, 30.0)]}


def test_trackio_gets_the_settings_and_every_figure(tmp_path: Path, install: Install) -> None:
    fake = install("trackio")
    trackers = Trackers(["trackio"], tracked(tmp_path), pytest.fail)
    trackers.log(3, {"loss/ca": 0.5})
    trackers.end()
    named = {"project": "fewstep", "name": "digits-1a2b3c4d-20261129", "group": "digits-1a2b3c4d-20261129"}
    assert fake.calls == [
        ("init", {**named, "config": {"batch": 4}}),
        ("log", (3, {"loss/ca": 0.5})),
        ("finish", None),
    ]


def test_wandb_is_offline_and_beside_the_runs_folder(tmp_path: Path, install: Install) -> None:
    fake = install("wandb")
    trackers = Trackers(["wandb"], tracked(tmp_path / "run"), pytest.fail)
    trackers.log(3, {"loss/ca": 0.5})
    trackers.end()
    (_, begun), *others = fake.calls
    assert (begun["mode"], begun["dir"]) == ("offline", str(tmp_path))
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert (begun["name"], begun["id"], begun["config"]) == (
        "digits-1a2b3c4d",
        "digits-1a2b3c4d-20261129",
        {"batch": 4},
    )
    assert others == [("log", (3, {"loss/ca": 0.5})), ("finish", None)]


@pytest.mark.parametrize(("name", "key"), [("trackio", "name"), ("wandb", "id")])
def test_what_writes_steps_again_is_a_run_of_its_own_in_one_group(
    name: TrackerName, key: str, tmp_path: Path, install: Install
) -> None:
    fake = install(name)
    for start in (1, 2):
        trackers = Trackers([name], tracked(tmp_path, start=start), pytest.fail)
        trackers.go_back(0)
        trackers.go_back(0)
    begun = [told for call, told in fake.calls if call == "init"]
    whole = "digits-1a2b3c4d-20261129"
    assert [told[key].removeprefix(whole) for told in begun] == ["", "-1-1", "-1-2", "-2", "-2-1", "-2-2"]
    assert {told["group"] for told in begun} == {whole}


def test_a_run_is_called_by_letters_that_every_library_takes_and_counts_its_starts(tmp_path: Path) -> None:
    """Weights & Biases refuses an id with some punctuation."""
    made = recipe(tmp_path)
    folder = RunFolder.create(tmp_path, "what's new, v2: #1?", made.config)
    with folder:
        known = tracked_run(made.config, folder, first_step=0)
    assert re.fullmatch(r"what-s-new--v2---1--[0-9a-f]+-\d{8}T\d{6}", known.id) and known.part == ""
    with RunFolder.create(tmp_path, "what's new, v2: #1?", made.config, resume=True) as again:
        assert tracked_run(made.config, again, first_step=2).part == "-2"


def test_where_wandb_writes_and_whether_it_sends_is_the_users_to_say(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DIR", "elsewhere")
    Trackers(["wandb"], tracked(tmp_path), pytest.fail)
    assert (fake.calls[0][1]["mode"], fake.calls[0][1]["dir"]) == ("online", "elsewhere")
    assert "WANDB_ERROR_REPORTING" not in os.environ


def test_a_library_is_imported_only_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trackio", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    require_trackers(["trackio", "wandb"])
    Trackers(["tensorboard"], tracked(tmp_path), pytest.fail).end()
    assert not {"trackio", "wandb"} & sys.modules.keys()


@pytest.mark.parametrize(("installed", "files"), [(True, 1), (False, 0)])
def test_unless_told_otherwise_there_is_tensorboard_where_it_is_installed(
    installed: bool, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "tensorboard", None)
    require_trackers(None)
    Trackers(None, tracked(tmp_path), pytest.fail).end()
    assert len(list(tmp_path.glob("tensorboard/*"))) == files


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^report.trackers names {name}, .*pip install 'fewstep\[tracking\]'"):
        run(recipe(tmp_path, f"report.trackers=[{name}]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("call", "calls"), [("init", 1), ("log", 2), ("finish", 4)])
def test_a_tracker_that_fails_is_told_once_and_stops_no_training(
    call: str, calls: int, tmp_path: Path, install: Install
) -> None:
    broken, whole = install("wandb", **{call: OSError(28, "no space\n\x1b[2J")}), install("trackio")
    said = io.StringIO()
    made = recipe(tmp_path, "budget.student_updates=1", "report.trackers=[wandb, trackio]")
    folder = train(made, output=tmp_path / "run", console=Console(file=said, width=1000))
    assert len(broken.calls) == calls
    assert said.getvalue().count("the tracker wandb failed (OSError: [Errno 28] no space \\x1b[2J)") == 1
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    own = ("step", "num_anchors", "seconds")
    figures = [(line["step"], {name: line[name] for name in line if name not in own}) for line in lines]
    assert [told for asked, told in whole.calls if asked == "log"] == figures
    assert (whole.calls[0][0], whole.calls[-1][0], len(figures)) == ("init", "finish", 2)


def test_ctrl_c_inside_a_library_is_no_failure_of_the_tracker(tmp_path: Path, install: Install) -> None:
    error = RuntimeError("the library gave up")
    error.__cause__ = KeyboardInterrupt()
    install("wandb", log=error)
    trackers = Trackers(["wandb"], tracked(tmp_path), pytest.fail)
    with pytest.raises(KeyboardInterrupt):
        trackers.log(0, {"loss/ca": 0.5})
