"""A student for ComfyUI: names of layers, settings in the file, and the graph beside it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from fewstep.backbones import adapter_class
from fewstep.backbones.comfyui import UNET, ComfyUIFamily
from fewstep.errors import ConfigError
from fewstep.export.diffusers_folder import student_facts
from fewstep.export.export import export
from fewstep.export.factors import require_comfyui
from fewstep.export.formats import ComfyUI, FixedRank
from fewstep.export.workflow import workflow
from fewstep.testing.case import open_adapter, save
from tests.backbones.families import FAMILIES
from tests.training.tiny_run import recipe, run

LORA = "{kind: lora, rank: 2}"


@pytest.mark.parametrize(
    ("kind", "layer", "name"),
    [
        ("sd15", "mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("sdxl", "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0", None),
        ("sd3", "transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_q"),
        ("flux2", "single_transformer_blocks.3.attn.to_out", "transformer.single_transformer_blocks.3.attn.to_out"),
        ("z-image", "layers.4.attention.to_out.0", "diffusion_model.layers.4.attention.to_out.0"),
        ("wan", "blocks.1.attn1.to_out.0", "diffusion_model.blocks.1.self_attn.o"),
        ("wan", "blocks.1.attn2.to_k", "diffusion_model.blocks.1.cross_attn.k"),
        ("wan", "blocks.0.ffn.net.0.proj", "diffusion_model.blocks.0.ffn.0"),
    ],
)
def test_layers_have_the_names_that_comfyui_maps(kind: str, layer: str, name: str | None) -> None:
    known = adapter_class(kind).comfyui
    assert known is not None
    expected = name or f"lora_unet_{layer.replace('.', '_')}"
    up = "lora_up" if known.kohya else "lora_B"
    found = known.named({f"{layer}.lora_B.weight": torch.zeros(1)})
    assert list(found) == [f"{expected}.{up}.weight"]


def test_a_variance_preserving_grid_is_counted_as_noise_over_data() -> None:
    """Independent of our clock: the sigmas of Stable Diffusion's betas at four of its time steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)[torch.tensor([999, 749, 499, 249])]
    expected = ((1 - kept) / kept).sqrt()
    flow = (1 - kept).sqrt() / (kept.sqrt() + (1 - kept).sqrt())
    assert expected[0] == pytest.approx(14.6146, abs=1e-4)  # ComfyUI's own sigma_max, so that noise is not scaled
    assert UNET.sigmas(flow.tolist()) == pytest.approx([*expected.tolist(), 0.0], rel=1e-9)


def graph_of(family: str, folder: Path) -> dict[str, dict[str, Any]]:
    adapter = open_adapter(FAMILIES[family], save(FAMILIES[family], folder))
    facts = student_facts(adapter, (1.0, 0.5), {}, step="euler")
    return workflow(adapter, require_comfyui(adapter), facts, lora="mine.safetensors", prompt="a red cat")


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "chroma", "qwen-image", "z-image", "flux2", "wan"])
def test_a_graph_is_whole(family: str, tmp_path: Path) -> None:
    graph = graph_of(family, tmp_path / "teacher")
    links = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert {at for at, _ in links} == graph.keys() - {"12"}  # all but the last node, which saves the picture
    (sampler,) = [node["inputs"] for node in graph.values() if node["class_type"] == "SamplerCustom"]
    (factors,) = [node["inputs"] for node in graph.values() if node["class_type"] == "LoraLoaderModelOnly"]
    assert sampler["cfg"] == 1.0
    assert (factors["lora_name"], factors["strength_model"]) == ("mine.safetensors", 1.0)
    assert sampler["model"] == ["4", 0] and graph["4"]["class_type"] == "LoraLoaderModelOnly"
    sigmas = [float(sigma) for sigma in graph["9"]["inputs"]["sigmas"].split(", ")]
    assert len(sigmas) == 3 and sigmas[-1] == 0 and all(math.isfinite(sigma) for sigma in sigmas)


def test_an_embedded_guidance_is_told_to_the_network(tmp_path: Path) -> None:
    graph = graph_of("flux", tmp_path / "teacher")
    at = graph["10"]["inputs"]["positive"][0]
    assert graph[at] == {"class_type": "FluxGuidance", "inputs": {"conditioning": ["5", 0], "guidance": 3.5}}


def test_a_family_without_a_layout_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    adapter = open_adapter(FAMILIES["pixart"], save(FAMILIES["pixart"], tmp_path / "teacher"))
    with pytest.raises(
        ConfigError,
        match=r"pixart has no LoRA layout of ComfyUI here; sd3, flux, wan, z-image, qwen-image, flux2-klein, flux2, "
        "chroma, krea2, sd15, sdxl have. Export it with --format lora or",
    ):
        require_comfyui(adapter)


def test_a_layer_without_a_name_there_is_refused(tmp_path: Path) -> None:
    adapter = open_adapter(FAMILIES["sd3"], save(FAMILIES["sd3"], tmp_path / "teacher"))
    with pytest.raises(
        ConfigError, match=r"The run trained pos_embed\.proj, for which the ComfyUI layout of sd3 has no"
    ):
        require_comfyui(adapter, {"pos_embed.proj.lora_A.weight": torch.zeros(1)})


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_run_becomes_a_file_and_a_graph(weights: str, tmp_path: Path) -> None:
    factors = [f"student.weights={LORA}", f"fake_score.weights={LORA}"] if weights == "lora" else []
    run(recipe(tmp_path, "budget.student_updates=1", "student.lr=0.05", *factors), tmp_path / "run")
    cut = None if weights == "lora" else FixedRank(2)
    done = export(tmp_path / "run", tmp_path / "mine", format=ComfyUI(cut))
    with safe_open(done.folder / "mine.safetensors", "pt") as file:
        names, told = list(file.keys()), file.metadata()
    assert all(name.startswith("transformer.transformer_blocks.") for name in names)
    graph = json.loads((done.folder / "workflow.json").read_text())
    assert graph["4"]["inputs"]["lora_name"] == "mine.safetensors"
    listed = [float(sigma) for sigma in graph["9"]["inputs"]["sigmas"].split(", ")]
    assert listed == pytest.approx(json.loads(told["sigmas"]), rel=1e-6) and len(listed) == 5
    assert 'load_lora_weights("mine", weight_name="mine.safetensors")' in (done.folder / "README.md").read_text()


def test_a_renoising_student_has_the_sampler_that_renoises(tmp_path: Path) -> None:
    adapter = open_adapter(FAMILIES["sd3"], save(FAMILIES["sd3"], tmp_path / "teacher"))
    facts = student_facts(adapter, (1.0, 0.5), {}, step="renoise")
    graph = workflow(adapter, ComfyUIFamily("transformer."), facts, lora="mine.safetensors", prompt="a red cat")
    assert graph["8"]["inputs"] == {"sampler_name": "lcm"}
