"""What a student's folder says and holds, and when none is written; what it draws is in the conformance suite."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import ModelAdapter, create_model_adapter
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import Exported, export_student
from fewstep.export.diffusers_folder import plain_floats
from fewstep.export.weights import put_weights
from fewstep.sampling import load_model, noise_batch
from fewstep.sampling.sampler import step_noise_batch
from fewstep.testing.case import LEVELS, open_adapter, save
from fewstep.testing.suite.exporting import run_code, shaken
from tests.backbones import tiny
from tests.backbones.families import FAMILIES


def teacher(folder: Path) -> ModelAdapter:
    family = FAMILIES["sd3"]
    return open_adapter(family, save(family, folder), family.other_size)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("export")
    adapter = teacher(root / "teacher")
    provenance = {"recipe": "tiny", "student_updates": 3, "teacher": "somebody/teacher"}
    return export_student(adapter, shaken(adapter), root / "student", levels=LEVELS, provenance=provenance)


def test_card_says_where_the_student_comes_from(exported: Exported) -> None:
    text = (exported.folder / "README.md").read_text()
    assert "| recipe | tiny |" in text
    assert "distilled with [fewstep](https://pypi.org/project/fewstep) from `somebody/teacher`" in text
    assert str(exported.folder.parent) not in text


def test_exported_student_is_refused_as_a_teacher(exported: Exported) -> None:
    with pytest.raises(ConfigError, match=r"is a student that fewstep exported.*cannot be the teacher"):
        create_model_adapter(exported.folder)


def test_student_that_re_noises_is_exported_with_a_scheduler_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the noise of our steps, its pipeline draws our latents; its own comes from torch's global generator."""
    from diffusers.schedulers import scheduling_flow_match_euler_discrete as stock

    adapter = teacher(tmp_path / "teacher")
    written = export_student(adapter, shaken(adapter), tmp_path / "student", levels=LEVELS, step="renoise")
    assert json.loads((written.folder / "fewstep.json").read_text())["step"] == "renoise"
    example, ours = run_code(written.stock_call, tmp_path), load_model(written.folder, "cpu")
    assert example["pipeline"].scheduler.config.stochastic_sampling
    assert "torch.manual_seed(0)\nimage = " in written.stock_call

    noise = noise_batch(["a cat"], [3], ours.latent_shape)
    steps = step_noise_batch(["a cat"], [3], ours.latent_shape, steps=len(LEVELS))
    fresh = iter([*steps.unbind(1), noise])  # the last is multiplied by 0
    monkeypatch.setattr(stock, "randn_tensor", lambda *shape, **place: next(fresh))
    call = {"prompt": ["a cat"], "latents": noise, "output_type": "latent", **example["call"]}
    drawn = ours.latents(["a cat"], [3])
    torch.testing.assert_close(drawn, example["pipeline"](**call).images, rtol=1e-4, atol=1e-5)
    _, in_company = ours.latents(["a dog", "a cat"], [0, 3], batch=1)
    torch.testing.assert_close(in_company, drawn[0], rtol=1e-4, atol=1e-5)


def test_bfloat16_export_halves_the_weights_and_says_so(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    full = export_student(adapter, shaken(adapter), tmp_path / "full", levels=LEVELS)
    half = export_student(adapter, shaken(adapter), tmp_path / "half", levels=LEVELS, dtype="bf16")
    weights = "transformer/diffusion_pytorch_model.safetensors"
    ratio = (full.folder / weights).stat().st_size / (half.folder / weights).stat().st_size
    assert ratio > 1.8  # the header does not shrink
    assert "dtype=torch.bfloat16" in half.stock_call
    assert run_code(half.stock_call, tmp_path)["pipeline"].transformer.dtype == torch.bfloat16


def test_folder_that_holds_something_is_refused_and_untouched(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="mine exists and is not an empty folder; choose another --output"):
        export_student(adapter, shaken(adapter), tmp_path / "mine", levels=LEVELS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    (tmp_path / "empty").mkdir()
    export_student(adapter, shaken(adapter), tmp_path / "empty", levels=LEVELS)
    export_student(adapter, shaken(adapter), tmp_path / "deep" / "er" / "student", levels=LEVELS)
    assert (tmp_path / "empty" / "model_index.json").is_file()
    assert (tmp_path / "deep" / "er" / "student" / "model_index.json").is_file()


def test_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    network = shaken(adapter)
    (tmp_path / "teacher" / "vae").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="has no folder vae"):
        export_student(adapter, network, tmp_path / "student", levels=LEVELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "teacher"]


def test_unknown_dtype_is_refused(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    with pytest.raises(ConfigError, match="dtype is 'fp8'; a student is exported as one of fp32, bf16"):
        export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS, dtype="fp8")


def test_further_copies_of_weights_are_not_exported(tmp_path: Path) -> None:
    adapter = teacher(tmp_path / "teacher")
    (tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"copy")
    (tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"copy")
    done = export_student(adapter, shaken(adapter), tmp_path / "student", levels=LEVELS)
    names = sorted(path.name for path in (done.folder / "vae").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_export_holds_files_of_its_own_where_the_teacher_has_links(tmp_path: Path) -> None:
    """The hub's download cache is made of links; an exported folder must survive without it."""
    adapter = teacher(tmp_path / "teacher")
    weights = tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    done = export_student(adapter, shaken(adapter), tmp_path / "student", levels=LEVELS)
    assert not any(path.is_symlink() for path in done.folder.rglob("*"))
    assert (done.folder / "vae" / weights.name).read_bytes() == (tmp_path / "blob").read_bytes()


def network_and_weights() -> tuple[nn.Module, dict[str, Tensor]]:
    network = tiny.sd3_pipeline().transformer
    return network, {name: torch.full_like(value, 0.5) for name, value in network.named_parameters()}


def test_weights_overwrite_every_parameter() -> None:
    network, weights = network_and_weights()
    put_weights(network, weights, [weights], origin="run")
    assert all(bool((parameter == 0.5).all()) for parameter in network.parameters())


def test_missing_weight_is_refused() -> None:
    network, weights = network_and_weights()
    del weights["proj_out.bias"]
    with pytest.raises(CheckpointError, match=r"student of runs/a does not fit.*1 weights are missing.*proj_out\.bias"):
        put_weights(network, weights, [weights], origin="runs/a")


def test_unknown_weight_is_refused_and_nothing_is_changed() -> None:
    network, weights = network_and_weights()
    before = network.proj_out.weight.clone()
    weights["base.proj_out.bias"] = weights["proj_out.bias"]
    with pytest.raises(CheckpointError, match=r"1 unknown.*base\.proj_out\.bias"):
        put_weights(network, weights, [weights], origin="runs/a")
    assert torch.equal(network.proj_out.weight, before)


def test_weight_of_another_shape_is_refused() -> None:
    network, weights = network_and_weights()
    weights["proj_out.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"1 of another shape.*proj_out\.bias"):
        put_weights(network, weights, [weights], origin="runs/a")


def test_sigmas_are_written_as_short_numbers_of_the_same_float32() -> None:
    sigmas = torch.tensor([1.0, 0.9, 0.75, 1 / 3])
    written = plain_floats(sigmas)
    assert written[:3] == [1.0, 0.9, 0.75]
    assert torch.equal(torch.tensor(written), sigmas)
