"""An exported student is a stock diffusers pipeline that draws what our own sampler draws."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import Exported, export_student
from fewstep.export.diffusers_folder import plain_floats
from fewstep.export.weights import put_weights
from fewstep.sampling import load_model
from fewstep.sampling.pictures import to_pil
from fewstep.testing.closeness import assert_same_pictures
from tests.backbones import tiny
from tests.backbones.families import FAMILIES, Family

LEVELS = (1.0, 0.75, 0.5, 0.25)
PROMPTS = ["a red cat", "two blue dogs"]


def teacher(family: Family, folder: Path) -> ModelAdapter:
    family.build().save_pretrained(folder)
    height, width = family.other_size
    fields = {"kind": family.kind, "model": str(folder), "height": height, "width": width, **family.config}
    return create_model_adapter(folder, adapter_class(family.kind).config_class(**fields))


def trained(adapter: ModelAdapter) -> nn.Module:
    """A student that is not its teacher."""
    network = adapter.load_network()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def exported(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("export")
    adapter = teacher(family, root / "teacher")
    provenance = {"recipe": "tiny", "student_updates": 3, "teacher": "somebody/teacher"}
    return export_student(adapter, trained(adapter), root / "student", levels=LEVELS, provenance=provenance)


def run_code(code: str, folder: Path) -> dict[str, Any]:
    """Run example code in ``folder``, as a reader would, and return its variables."""
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, names)
    finally:
        os.chdir(before)
    return names


@pytest.fixture(scope="module")
def readme(exported: Exported) -> dict[str, Any]:
    text = (exported.folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    return run_code(blocks[0], exported.folder.parent)


def noise(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(9))


def test_stock_call_of_the_readme_draws_our_samplers_latents(
    family: Family, exported: Exported, readme: dict[str, Any]
) -> None:
    ours = load_model(exported.folder, "cpu")
    start = noise(2, ours.latent_shape)
    drawn = ours.latents(PROMPTS, [0, 0], noise=start)
    pipeline, size = readme["pipeline"], family.other_size
    tokens = family.pack(pipeline, start)
    stock = family.unpack(
        pipeline, pipeline(PROMPTS, latents=tokens, output_type="latent", **readme["call"]).images, *size
    )
    # float32 sums in another order, through four network calls
    torch.testing.assert_close(drawn, stock, rtol=1e-5, atol=family.tolerance)


def test_picture_of_the_readme_is_ours(exported: Exported, readme: dict[str, Any]) -> None:
    ours = load_model(exported.folder, "cpu")
    start = torch.randn(1, *ours.latent_shape, generator=torch.Generator().manual_seed(0))
    prompt = "a lighthouse on a cliff at dusk"
    picture = to_pil(ours.pixels(ours.latents([prompt], [0], noise=start)))[0]
    assert picture.size == readme["image"].size
    assert_same_pictures(np.asarray(picture), np.asarray(readme["image"]))
    assert (exported.folder.parent / "picture.png").is_file()


def test_printed_call_draws_the_same_picture_as_the_readme(exported: Exported, readme: dict[str, Any]) -> None:
    printed = run_code(exported.stock_call, exported.folder.parent)
    assert_same_pictures(np.asarray(printed["image"]), np.asarray(readme["image"]))


def test_exported_network_is_the_trained_one_and_not_the_teacher(exported: Exported) -> None:
    reloaded = create_model_adapter(exported.folder, as_teacher=False).load_network()
    origin = create_model_adapter(exported.folder.parent / "teacher")
    expected = trained(origin).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in reloaded.state_dict().items())


def test_grid_of_the_student_is_the_shifted_one_of_its_teacher(exported: Exported) -> None:
    origin = create_model_adapter(exported.folder.parent / "teacher")
    facts = json.loads((exported.folder / "fewstep.json").read_text())
    height, width = facts["backbone"]["height"], facts["backbone"]["width"]
    origin.config = origin.config.model_copy(update={"height": height, "width": width})
    torch.testing.assert_close(torch.tensor(facts["sigmas"]), origin.to_sigma(torch.tensor(LEVELS)), rtol=0, atol=0)


def test_another_number_of_steps_still_uses_the_teachers_clock(exported: Exported) -> None:
    """The student's scheduler no longer shifts, so its own grid must come from the facts, never from its files."""
    ours = load_model(exported.folder, "cpu")
    origin = create_model_adapter(exported.folder.parent / "teacher", ours.adapter.config)
    torch.testing.assert_close(ours.sigmas(2), origin.to_sigma(torch.tensor([1.0, 0.5])), rtol=1e-6, atol=1e-6)


def test_number_of_steps_of_the_student_uses_its_own_grid(exported: Exported) -> None:
    ours = load_model(exported.folder, "cpu")
    facts = json.loads((exported.folder / "fewstep.json").read_text())
    assert ours.sigmas(4).tolist() == torch.tensor(facts["sigmas"]).tolist()


def test_card_says_where_the_student_comes_from(exported: Exported) -> None:
    text = (exported.folder / "README.md").read_text()
    assert "| recipe | tiny |" in text
    assert "distilled with [fewstep](https://pypi.org/project/fewstep) from `somebody/teacher`" in text
    assert str(exported.folder.parent) not in text


def test_exported_student_is_refused_as_a_teacher(exported: Exported) -> None:
    with pytest.raises(ConfigError, match=r"is a student that fewstep exported.*cannot be the teacher"):
        create_model_adapter(exported.folder)


def test_bfloat16_export_halves_the_weights_and_says_so(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    full = export_student(adapter, trained(adapter), tmp_path / "full", levels=LEVELS)
    half = export_student(adapter, trained(adapter), tmp_path / "half", levels=LEVELS, dtype="bf16")
    weights = "transformer/diffusion_pytorch_model.safetensors"
    ratio = (full.folder / weights).stat().st_size / (half.folder / weights).stat().st_size
    assert ratio > 1.8  # the header does not shrink
    assert "dtype=torch.bfloat16" in half.stock_call
    assert run_code(half.stock_call, tmp_path)["pipeline"].transformer.dtype == torch.bfloat16


def test_folder_that_holds_something_is_refused_and_untouched(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="mine exists and is not an empty folder; choose another --output"):
        export_student(adapter, trained(adapter), tmp_path / "mine", levels=LEVELS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    (tmp_path / "empty").mkdir()
    export_student(adapter, trained(adapter), tmp_path / "empty", levels=LEVELS)
    export_student(adapter, trained(adapter), tmp_path / "deep" / "er" / "student", levels=LEVELS)
    assert (tmp_path / "empty" / "model_index.json").is_file()
    assert (tmp_path / "deep" / "er" / "student" / "model_index.json").is_file()


def test_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    network = trained(adapter)
    (tmp_path / "teacher" / "vae").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="has no folder vae"):
        export_student(adapter, network, tmp_path / "student", levels=LEVELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone", "teacher"]


def test_unknown_dtype_is_refused(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    with pytest.raises(ConfigError, match="dtype is 'fp8'; a student is exported as one of fp32, bf16"):
        export_student(adapter, adapter.load_network(), tmp_path / "student", levels=LEVELS, dtype="fp8")


def test_further_copies_of_weights_are_not_exported(tmp_path: Path) -> None:
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    (tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"copy")
    (tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"copy")
    done = export_student(adapter, trained(adapter), tmp_path / "student", levels=LEVELS)
    names = sorted(path.name for path in (done.folder / "vae").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_export_holds_files_of_its_own_where_the_teacher_has_links(tmp_path: Path) -> None:
    """The hub's download cache is made of links; an exported folder must survive without it."""
    adapter = teacher(FAMILIES["sd3"], tmp_path / "teacher")
    weights = tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    done = export_student(adapter, trained(adapter), tmp_path / "student", levels=LEVELS)
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
