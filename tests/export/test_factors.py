"""The factors of a student alone, put on the teacher by stock diffusers."""

from pathlib import Path

import pytest
import torch

from fewstep.errors import ConfigError
from fewstep.export.export import export
from fewstep.sampling import load_model
from tests.training.tiny_run import recipe, run

LORA = "{kind: lora, rank: 2, alpha: 3.0}"
SHORT = ("budget.student_updates=1", f"student.weights={LORA}", f"fake_score.weights={LORA}", "student.lr=0.05")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factors")
    run(recipe(folder, *SHORT), folder / "run")
    return folder


def test_the_printed_call_draws_what_the_merged_student_draws(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = export(trained / "run", tmp_path / "merged")
    factors = export(trained / "run", tmp_path / "factors", factors_only=True)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(factors.stock_call, scope)
    assert (tmp_path / "picture.png").is_file()
    call, pipeline = scope["call"], scope["pipeline"]
    assert isinstance(call, dict)
    loaded = load_model(merged.folder, "cpu")
    noise = torch.randn(1, *loaded.latent_shape, generator=torch.Generator().manual_seed(5))
    theirs = pipeline("a red cat", latents=noise, output_type="latent", **call).images  # type: ignore[operator]
    ours = loaded.latents(["a red cat"], [0], noise=noise)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    teacher = load_model(trained / "teacher", "cpu").latents(
        ["a red cat"], [0], noise=noise, sigmas=loaded.sigmas(4), guidance_scale=1.0
    )
    assert (teacher - ours).abs().max() > 1e-3


def test_the_readme_holds_the_call(trained: Path, tmp_path: Path) -> None:
    done = export(trained / "run", tmp_path / "factors", factors_only=True, dtype="bf16")
    text = (done.folder / "README.md").read_text()
    assert 'load_lora_adapter("factors", prefix=None' in text and "dtype=torch.bfloat16" in text


def test_a_run_of_all_weights_has_no_factors(tmp_path: Path) -> None:
    run(recipe(tmp_path, "budget.student_updates=1"), tmp_path / "run")
    with pytest.raises(ConfigError, match="trained all weights, so it has no factors; export it without --factors"):
        export(tmp_path / "run", tmp_path / "out", factors_only=True)
    assert not (tmp_path / "out").exists()
