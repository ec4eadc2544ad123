"""What trackio and Weights & Biases have of a run, by their own files; skipped where they are not installed."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fewstep.runs.places import checkpoints
from tests.training.test_run import metrics
from tests.training.tiny_run import write_inputs

pytestmark = pytest.mark.slow

Steps = dict[int, dict[str, Any]]


def trained(folder: Path, tracker: str) -> list[str]:
    """A run whose last checkpoint is lost, so that its resume writes two steps again; what both said on stdout."""
    pytest.importorskip(tracker)
    write_inputs(folder)
    command = [sys.executable, "-m", "fewstep", "train", "tiny.yaml", "checkpoint.every=2", "--output", "run"]
    command += [f"report.trackers=[{tracker}]", "health={probe: {every: 1, prompts: 2, seeds: 2}}"]
    # read when the library is imported, so not in this process
    own = {"TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | own
    said = []
    for more in ([], ["--resume"]):
        done = subprocess.run([*command, *more], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Warning: the tracker" not in done.stderr
        said += done.stdout.splitlines()
        if not more:
            *earlier, last = checkpoints(folder / "run" / "checkpoints")
            last.rename(folder / "lost")
            (folder / "run" / "checkpoints" / "latest").write_text(earlier[-1].name)
    return said


def together(lines: list[tuple[int, Mapping[str, Any]]]) -> Steps:
    """Figures by step, where those of one step came in parts; without what is not told a tracker."""
    steps: Steps = {}
    for step, line in lines:
        told = {name: value for name, value in line.items() if "/" in name}
        assert not told.keys() & steps.get(step, {}).keys(), "a figure of one step twice in one run"
        steps.setdefault(step, {}).update(told)
    return steps


def of_metrics(folder: Path) -> Steps:
    return together([(int(line["step"]), line) for line in metrics(folder)])


def test_trackio_has_every_figure_of_a_run_and_of_its_resume(tmp_path: Path) -> None:
    said = trained(tmp_path, "trackio")
    assert all(line.startswith("The run is in run.") for line in said), said
    with sqlite3.connect(tmp_path / "trackio" / "fewstep.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        stored = dict(database.execute("SELECT run_name, config FROM configs").fetchall())
    runs: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for name, step, figures in rows:
        runs.setdefault(name, []).append((step, json.loads(figures)))
    (first, begun), (second, resumed) = runs.items()
    assert second == f"{first}-2"
    written = of_metrics(tmp_path / "run")
    assert together(resumed) == {step: written[step] for step in (4, 5)}
    assert together(begun).keys() == written.keys()
    assert {step: together(begun)[step] for step in range(4)} == {step: written[step] for step in range(4)}
    config = json.loads(stored[second])
    assert (config["_Group"], config["batch"], config["backbone"]["height"]) == (first, 4, 16)


def test_wandb_has_every_figure_of_a_run_and_of_its_resume_offline(tmp_path: Path) -> None:
    said = trained(tmp_path, "wandb")
    assert all(line.startswith("The run is in run.") for line in said), said
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    (first, begun), (second, resumed) = map(stored_by_wandb, files)
    assert second["run_id"] == f"{first['run_id']}-2" and second["run_group"] == first["run_id"]
    written = of_metrics(tmp_path / "run")
    assert together(resumed) == {step: written[step] for step in (4, 5)}
    assert together(begun).keys() == written.keys()
    assert {step: together(begun)[step] for step in range(4)} == {step: written[step] for step in range(4)}
    settings = second["config"]["update"]
    assert (settings["batch"], settings["backbone"]["height"]) == (4, 16)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_symlink()]


def stored_by_wandb(file: Path) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    """What its own reader finds in a file: the run, and each step's figures."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    quiet = os.environ | {"WANDB_ERROR_REPORTING": "false"}
    text = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (run,) = (record["run"] for record in records if record["type"] == "run")
    steps = [record["history"] for record in records if record["type"] == "history"]
    return run, [(int(each["step"]["num"]), each["item"]) for each in steps]
