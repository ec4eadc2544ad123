"""A whole run at a model's real size, as the program does it with tiny networks."""

import json
from pathlib import Path

import pytest
from benchmarks.real_checkpoint import MODELS, make_checkpoint
from benchmarks.real_size import main

from fewstep.planning.meta_networks import shipped


@pytest.mark.slow
def test_every_command_of_a_run_is_measured_and_a_killed_training_goes_on(tmp_path: Path) -> None:
    main([str(tmp_path / "work"), "--tiny", "--output", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == [
        *("check", "plan", "embed", "train, killed behind its first checkpoint", "resume to the end"),
        *("export factors", "export pipeline", "sample"),
    ]
    assert all(row["peak_bytes"] > 100 * 2**20 and row["cpu_seconds"] > 1 for row in stages.values())
    assert found["seconds_per_unit"] > 0 and found["planned"]["peak_gib"] > 0
    assert found["parameters"]["transformer"] > 0
    assert (tmp_path / "work" / "drawn.png").is_file()
    assert sorted(path.name for path in (tmp_path / "work/run/checkpoints").glob("step-*")) == [
        "step-00000002",
        "step-00000004",
    ]


@pytest.mark.parametrize("recipe", MODELS)
def test_a_checkpoint_has_the_released_configuration_where_it_is_not_tiny(recipe: str, tmp_path: Path) -> None:
    made = make_checkpoint(recipe, tmp_path / "made", tiny=True)
    assert {"transformer", "vae", "text_encoder"} <= set(made)
    released = shipped(MODELS[recipe])
    assert released is not None
    told = json.loads((tmp_path / "made/transformer/config.json").read_text())
    assert told["_class_name"] == released["transformer"]["_class_name"]
    assert told["patch_size"] == released["transformer"]["patch_size"]
