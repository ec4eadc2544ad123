"""A student as low-rank factors, put on the teacher by stock diffusers."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from fewstep.backbones import create_model_adapter
from fewstep.cli.main import execute
from fewstep.errors import ConfigError
from fewstep.export import Exported
from fewstep.export.diffusers_folder import student_facts
from fewstep.export.export import export
from fewstep.export.formats import FixedRank, Format, LargestError, Lora
from fewstep.export.stock_code import factors_code
from fewstep.sampling import load_model
from fewstep.testing.suite.exporting import run_code
from tests.training.tiny_run import recipe, run

LORA = "{kind: lora, rank: 2, alpha: 3.0}"
SHORT = ("budget.student_updates=1", "student.lr=0.05", "student.warmup=0", "student.ema=null")
FACTORS = (f"student.weights={LORA}", f"fake_score.weights={LORA}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained factors, and one that trained all weights."""
    folder = tmp_path_factory.mktemp("factors")
    run(recipe(folder, *SHORT, *FACTORS), folder / "run")
    run(recipe(folder, *SHORT), folder / "full")
    return folder


def drawn_by(done: Exported, noise: Tensor) -> Tensor:
    """Latents by the printed code's own pipeline and call."""
    scope = run_code(done.stock_call, done.folder.parent)
    drawn: Tensor = scope["pipeline"]("a red cat", latents=noise, output_type="latent", **scope["call"]).images
    return drawn


@pytest.mark.parametrize(("name", "format"), [("run", Lora()), ("full", Lora(FixedRank(1000)))])
def test_the_printed_call_draws_what_the_whole_student_draws(
    name: str, format: Format, trained: Path, tmp_path: Path
) -> None:
    whole = export(trained / name, tmp_path / "whole")
    factors = export(trained / name, tmp_path / "factors", format=format)
    loaded = load_model(whole.folder, "cpu")
    noise = torch.randn(1, *loaded.latent_shape, generator=torch.Generator().manual_seed(5))
    ours = loaded.latents(["a red cat"], [0], noise=noise)
    theirs = drawn_by(factors, noise)
    teacher = load_model(trained / "teacher", "cpu").latents(
        ["a red cat"], [0], noise=noise, sigmas=loaded.sigmas(4), guidance_scale=1.0
    )
    moved = float((teacher - ours).square().mean().sqrt())
    assert moved > 1e-3
    # of factors cut from all weights, what norms and biases changed is missing
    allowed = 1e-4 if name == "run" else 0.5 * moved
    assert float((theirs - ours).square().mean().sqrt()) < allowed


def test_the_readme_holds_the_call_and_the_strength(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "run", tmp_path / "factors", format=Lora(), dtype="bf16")
    text = (done.folder / "README.md").read_text()
    assert 'load_lora_weights("factors", weight_name="pytorch_lora_weights.safetensors")' in text
    assert "dtype=torch.bfloat16" in text and "**Their strength is 1**" in text


def test_alpha_is_inside_and_the_settings_are_in_the_file(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "run", tmp_path / "factors", format=Lora())
    with safe_open(done.folder / "pytorch_lora_weights.safetensors", "pt") as file:
        names, told = set(file.keys()), file.metadata()
    assert all(re.fullmatch(r"transformer\..+\.lora_[AB]\.weight", name) for name in names)
    sigmas = create_model_adapter(trained / "teacher").to_sigma(torch.tensor([1.0, 0.75, 0.5, 0.25])).tolist()
    assert json.loads(told["sigmas"]) == pytest.approx([*sigmas, 0.0], rel=1e-6)
    assert {name: told[name] for name in ("sampler", "steps", "guidance_scale", "strength", "teacher")} == {
        "sampler": "euler",
        "steps": "4",
        "guidance_scale": "1",
        "strength": "1",
        "teacher": "teacher",
    }


def test_ranks_of_trained_factors_are_no_choice(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trained factors of rank 2, which are exported as they are; leave --rank,"):
        export(trained / "run", tmp_path / "out", format=Lora(FixedRank(4)))
    assert not (tmp_path / "out").exists()


def test_every_layers_error_is_in_the_readme(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "full", tmp_path / "factors", format=Lora(LargestError(0.5)))
    assert done.extraction is not None
    text = (done.folder / "README.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| \S+ \| (\S+)% \|$", text, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == [layer.name for layer in done.extraction.layers]
    assert all(float(error) <= 50 for _, _, error in rows)


def test_the_command_prints_the_error_of_every_layer(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = str(tmp_path / "factors")
    assert execute(["export", str(trained / "full"), "--format", "lora", "--rank", "1", "--output", out]) == 0
    said = capsys.readouterr().out
    assert re.search(r"transformer_blocks\.0\.attn\.to_q +1 +\S+ +\d+\.\d+%", said)
    assert "layers lack " in said and "Read again from the written files and drawn: latents differ by " in said


def test_the_printed_call_opens_the_teacher_that_ships(tmp_path: Path) -> None:
    adapter = create_model_adapter("fewstep:digits")
    facts = student_facts(adapter, (1.0, 0.5), {}, step="euler")
    code = factors_code(adapter, "factors", facts, teacher="fewstep:digits", dtype="fp32", file="factors.safetensors")
    opening = code.partition("pipeline.load_lora_weights")[0]
    assert run_code(opening, tmp_path)["pipeline"].transformer.config.num_layers == 4
