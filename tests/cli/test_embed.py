"""``fewstep embed`` as it is typed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewstep.cli.main import execute
from tests.distributed.conftest import start
from tests.training.tiny_run import PROMPTS, recipe, run, write_inputs


def test_the_size_of_flux_embeddings_follows_from_the_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", "flux1-dev", "--estimate", "--num-prompts", "200000", "--root", str(tmp_path)]
    assert execute(command) == 0
    assert capsys.readouterr().out.startswith(
        "Embeddings of 200000 prompts: 4195840 bytes each (from the shapes, padding included), 782 GiB in all; "
    )


def test_training_uses_what_was_embedded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_inputs(tmp_path)
    assert execute(["embed", str(path), "--root", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Embeddings of 5 prompts: ")
    assert told[-1].startswith("The embeddings of 5 prompts are in ")
    caches = list((tmp_path / "runs" / ".cache" / "embeddings").iterdir())
    run(recipe(tmp_path, "budget.student_updates=1"), tmp_path / "runs" / "run")
    assert list((tmp_path / "runs" / ".cache" / "embeddings").iterdir()) == caches
    assert len(caches) == 1


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    path = write_inputs(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    assert execute(["embed", str(path), "--root", str(tmp_path / "one")]) == 0
    done = start(2, "-m", "fewstep", "embed", str(path), "--root", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    (one,), (two,) = (list((tmp_path / name / ".cache" / "embeddings").iterdir()) for name in ("one", "two"))
    assert [file.name for file in sorted(one.iterdir())] == [file.name for file in sorted(two.iterdir())]
    assert torch.equal(load_file(one / "places.safetensors")["places"], load_file(two / "places.safetensors")["places"])


def test_a_number_of_prompts_without_an_estimate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["embed", "digits", "--num-prompts", "3"]) == 2
    assert "--num-prompts 3 is for --estimate; shorten the prompt file instead." in capsys.readouterr().err
