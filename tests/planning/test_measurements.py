"""What a plan takes from a file of measurements, and which files it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from fewstep.config import load_recipe
from fewstep.errors import CheckpointError, ConfigError
from fewstep.planning.measurements import Measurements, load_measurements
from fewstep.planning.memory import GIB
from fewstep.planning.plan import Planner
from fewstep.planning.search import ASSUMED, Reserve

SD3, SANA = "stabilityai/stable-diffusion-3-medium-diffusers", "Efficient-Large-Model/Sana_600M_1024px_diffusers"


def row(case: str, **changed: Any) -> dict[str, Any]:
    update: dict[str, Any] = {
        "model": SD3,
        "height": 1024,
        "width": 1024,
        "trains": "lora",
        "checkpointing": True,
        "microbatch": 1,
        "batch": 2,
        "compute": "bf16",
        "compiled": False,
        "spread": True,
        "seconds": [2.0, 2.0],
        "units": 37.5,
        "teraflop_per_forward": 8.9,
        "teraflops": 300.0,
        "utilisation": 0.3,
        "predicted_bytes": 10 * GIB,
        "peak_bytes": 10 * GIB,
        "reserved_bytes": 11 * GIB,
        "outside_bytes": GIB // 2,
    }
    return {"case": case, "took_seconds": 9.5, "update": {**update, **changed}}


def file_of(*rows: dict[str, Any], **changed: Any) -> dict[str, Any]:
    card = {"name": "Test Card", "memory_bytes": 40 * GIB, "capability": "9.0", "driver": None, "peak_teraflops": {}}
    about = {"format": 1, "fewstep": "1.0", "torch": "2.13", "toolkit": None, "minutes": 8.0, "tiny": False}
    skipped = {"case": "late", "took_seconds": 0, "not_run": "the minutes were over"}
    return {**about, "card": card, "rows": [*rows, skipped], **changed}


def written(folder: Path, content: Any) -> Path:
    path = folder / "card.json"
    path.write_text(json.dumps(content))
    return path


def loaded(folder: Path, *rows: dict[str, Any]) -> Measurements:
    return load_measurements(str(written(folder, file_of(*rows))))


@pytest.mark.parametrize(
    ("overrides", "trains", "microbatch", "case"),
    [
        ([], "lora", 1, "sd3"),
        ([], "lora", 6, "sd3 microbatch 8"),
        ([], "full", 1, "sd3 full"),
        (["memory.gradient_checkpointing=selective"], "lora", 8, "sd3 selective"),
        # nobody measured all weights selectively: how they are trained counts before how they are recomputed
        (["memory.gradient_checkpointing=selective"], "full", 8, "sd3 full"),
        (["backbone.height=512", "backbone.width=512"], "lora", 1, "sd3"),
        (["precision.compute=fp32"], "lora", 1, "sana fp32"),
    ],
)
def test_the_updates_most_like_a_run_are_taken(
    tmp_path: Path, overrides: list[str], trains: str, microbatch: int, case: str
) -> None:
    found = loaded(
        tmp_path,
        row("sana fp32", model=SANA, compute="fp32"),
        row("sana", model=SANA),
        row("sd3 whole", spread=False),
        row("sd3"),
        row("sd3 microbatch 8", microbatch=8),
        row("sd3 selective", checkpointing="selective"),
        row("sd3 full", trains="full"),
    )
    config = load_recipe("sd3-medium", ["memory.gradient_checkpointing=true", *overrides]).config
    assert found.nearest(config, trains=trains, microbatch=microbatch)[0] == case


def test_a_precision_that_nobody_measured_is_refused(tmp_path: Path) -> None:
    config = load_recipe("sd3-medium", ["precision.compute=fp32"]).config
    with pytest.raises(ConfigError, match="On Test Card no student update was measured in fp32, which is precision"):
        loaded(tmp_path, row("bf16")).nearest(config, trains="lora", microbatch=1)


def test_the_reserve_is_the_most_that_was_needed_beside_the_prediction(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        row("one"),
        row("two", reserved_bytes=13 * GIB),
        row("three", outside_bytes=GIB),
        row("other", trains="full", reserved_bytes=90 * GIB),
        row("unpredicted", predicted_bytes=None, reserved_bytes=95 * GIB),
    )
    assert found.reserve(trains="lora") == Reserve(1.3, GIB)
    assert found.reserve(trains="mixed") == Reserve(9.0, GIB)


def test_without_measured_memory_the_assumed_reserve_stays(tmp_path: Path) -> None:
    assert loaded(tmp_path, row("one", reserved_bytes=None)).reserve(trains="lora") is ASSUMED


def test_hours_and_memory_of_a_plan_are_those_of_the_card(tmp_path: Path) -> None:
    fast, slow = (
        Planner("digits", measured=loaded(tmp_path, row("digits", compute="fp32", teraflops=speed)))
        for speed in (50.0, 25.0)
    )
    plans = [planner.plan(gpus=2, memory=20 * GIB) for planner in (fast, slow)]
    assert plans[1].hours == pytest.approx(2 * plans[0].hours)
    config = plans[0].choice.config
    steps = config.budget.student_updates * config.student.every
    assert plans[0].hours == pytest.approx(plans[0].flops_per_step * steps / (2 * 50e12) / 3600)
    assert plans[0].choice.needed == pytest.approx(1.1 * plans[0].choice.memory.peak + GIB / 2)
    assert plans[0].as_dict()["measured"]["card"] == "Test Card"


def test_a_card_is_found_by_its_name(tmp_path: Path) -> None:
    written(tmp_path, file_of(row("one")))
    assert load_measurements("test card", cards=tmp_path).card.name == "Test Card"


def test_a_name_that_is_neither_a_file_nor_a_card_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is 'H900', which is neither a file nor a card .* \(none yet\); python -m"):
        load_measurements("H900", cards=tmp_path)
    written(tmp_path, file_of(row("one")))
    with pytest.raises(ConfigError, match=r"\(Test Card\)"):
        load_measurements("H900", cards=tmp_path)


def test_every_file_in_the_package_is_readable() -> None:
    with pytest.raises(ConfigError, match="neither a file nor a card"):
        load_measurements("no such card")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "cannot be used: the whole is"),
        ({"rows": []}, "tells no format of measurements. Run python -m benchmarks.gpu again, or name another file."),
        ({"format": True}, "tells no format of measurements"),
        ({"format": 2}, "has format 2, but this fewstep reads formats up to 1; install a newer fewstep."),
        ({"format": 1}, "cannot be used: fewstep is"),
        (file_of(row("one", teraflops=-3.0)), "cannot be used: rows.0.update.teraflops is -3.0: input should be"),
        (file_of(row("one", seconds=[])), "cannot be used: rows.0.update.seconds is"),
        (file_of(row("one", surprise=1)), "cannot be used: rows.0.update.surprise is 1: extra inputs"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        load_measurements(str(written(tmp_path, content)))
    assert said in str(raised.value)


def test_shrunk_networks_tell_nothing_about_a_card(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tells of shrunk networks on Test Card, which says nothing about a GPU"):
        load_measurements(str(written(tmp_path, file_of(row("one"), tiny=True))))
