"""The benchmark for GPUs, shrunk to a CPU: what it counts is right, and whatever goes wrong becomes a row."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.counting import Counter
from benchmarks.gpu import PAIRS, card_of, main, measure
from benchmarks.gpu_cases import Case, cases
from benchmarks.gpu_updates import Bench, Training, random_weights_trainer, units_of

from fewstep.files import read_json
from fewstep.planning.measurements import Measurements, stated_peak

CPU = ["--device", "cpu", "--tiny"]


@pytest.fixture
def bench() -> Bench:
    device = torch.device("cpu")
    return Bench(device, card_of(device), tiny=True)


def run_cases(bench: Bench, *chosen: Case, minutes: float = 1.0) -> list[Measurements]:
    written: list[Measurements] = []
    measure(chosen, bench, minutes=minutes, write=written.append)
    return written


def fail(bench: Bench) -> dict[str, Any]:
    raise RuntimeError("no kernel image is available\nand much more")


def overflow(bench: Bench) -> dict[str, Any]:
    raise torch.OutOfMemoryError("tried to allocate 20 GiB")


def hang(bench: Bench) -> dict[str, Any]:
    while True:
        time.sleep(0.01)


def succeed(bench: Bench) -> dict[str, Any]:
    return {"figures": {"seconds": 1.0}, "ratios": {"a_to_b": 2.0}}


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (fail, "RuntimeError: no kernel image is available"),
        (overflow, "out of memory"),
        (hang, "its 0 seconds were over"),
    ],
)
def test_what_goes_wrong_is_a_row_and_the_next_case_runs(bench: Bench, work: Any, why: str) -> None:
    *_, last = run_cases(bench, Case("first", 0.2, work), Case("second", 5, succeed))
    assert [(row.case, row.not_run) for row in last.rows] == [("first", why), ("second", None)]
    assert last.ratios == {"a_to_b": 2.0}


def test_cases_behind_the_last_minute_are_rows_that_say_so(bench: Bench) -> None:
    *_, last = run_cases(bench, Case("long", 60, hang), Case("late", 60, succeed), minutes=0.004)
    assert [row.not_run for row in last.rows] == ["its 0 seconds were over", "the minutes were over"]


def test_what_has_no_meaning_on_a_cpu_says_so(bench: Bench) -> None:
    *_, last = run_cases(bench, Case("compiled", 60, succeed, only_on_gpu=True))
    assert last.rows[0].not_run == "it is measured on a GPU only"


def test_the_file_is_written_after_every_case(bench: Bench) -> None:
    written = run_cases(bench, Case("one", 5, succeed), Case("two", 5, fail))
    assert [len(each.rows) for each in written] == [1, 2]


@pytest.mark.parametrize(("trains", "checkpointing"), [("full", True), ("lora", False)])
def test_units_are_those_that_hooks_count(bench: Bench, trains: str, checkpointing: bool) -> None:
    case = Training("sd3-medium", trains, checkpointing, microbatch=2, compute="fp32")
    config = case.config(bench)
    with random_weights_trainer(bench, config) as trainer:
        roles = trainer.roles
        networks = {name: getattr(roles, name).network for name in ("student", "teacher", "fake_score")}
        counter = Counter({repr(id(network)): network for network in networks.values()}, trainer.adapter.block_classes)
        for _ in range(config.student.every):
            trainer.run_step()
        counted = sum(calls["units"] for calls in counter.taken().values())
        assert units_of(trainer, 0) * config.batch == pytest.approx(counted)


def test_an_update_is_measured_beside_its_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    main([*CPU, "--only", "matrix", "microbatch 1, fp32", "--output", str(path)])
    found = read_json(path, Measurements)
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())
    assert [row.not_run for row in found.rows] == [None, None]
    update = found.rows[1].update
    assert update is not None and found.tiny
    assert update.predicted_bytes == pytest.approx(update.peak_bytes, rel=0.1)
    assert update.utilisation is update.reserved_bytes is None
    work = update.units * update.batch * update.teraflop_per_forward
    assert update.teraflops == pytest.approx(work / update.seconds[0])


@pytest.mark.slow
def test_every_case_runs_on_a_cpu_but_those_for_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    main([*CPU, "--minutes", "60", "--output", str(path)])
    found = read_json(path, Measurements)
    assert [row.case for row in found.rows] == [case.name for case in cases()]
    assert {row.not_run for row in found.rows if "compiled" not in row.case} == {None}
    assert found.ratios.keys() >= {"plain_to_ours", "fp32_to_bf16", "spread_to_whole", "teacher_to_student_sd3-medium"}


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_case_runs_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    main(["--tiny", "--minutes", "60", "--output", str(path)])
    found = read_json(path, Measurements)
    assert [(row.case, row.not_run) for row in found.rows if row.not_run is not None] == []
    assert all(row.update.reserved_bytes for row in found.rows if row.update is not None)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "cpu"], "--device cpu needs --tiny"),
        ([*CPU, "--minutes", "0"], "--minutes is 0; it must be above 0 and at most 600"),
        ([*CPU, "--minutes", "nan"], "--minutes is nan; it must be above 0 and at most 600"),
        ([*CPU, "--only", "nonsense"], "no case has nonsense in its name"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err


def test_no_two_cases_have_one_name_and_every_pair_is_of_two() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert {name for pair in PAIRS.values() for name in pair} <= set(names)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("NVIDIA Something New", None),
    ],
)
def test_the_peak_of_a_card_is_found_by_its_name(name: str, peak: float | None) -> None:
    assert stated_peak(name).get("bf16") == peak
