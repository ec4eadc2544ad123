"""A run on a named prompt set, from a download cache."""

from pathlib import Path

import pytest

from fewstep.errors import ConfigError
from tests.prompts.hub_cache import put_set
from tests.training.tiny_run import PROMPTS, recipe, run


def test_a_run_on_a_set_goes_on_with_the_content_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    put_set(tmp_path / "hub", "midjourney", PROMPTS)
    made = [
        recipe(tmp_path, "prompts={kind: set, name: midjourney, limit: 4}", f"budget.student_updates={updates}")
        for updates in (1, 2)
    ]
    run(made[0], tmp_path / "run")
    assert run(made[1], tmp_path / "run", resume=True).config.prompts == made[0].config.prompts
    put_set(tmp_path / "hub", "midjourney", [*PROMPTS[1:], "another"])
    with pytest.raises(ConfigError, match=r"prompts\.name \(data/train-.*parquet\) is .*, whose content has changed"):
        run(made[1], tmp_path / "run", resume=True)
