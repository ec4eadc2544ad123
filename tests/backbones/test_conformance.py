"""One suite for every backbone: an adapter is right when it equals its own stock pipeline."""

import fnmatch
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from fewstep.core.conditioning import Conditioning, PromptTensor
from fewstep.core.points import NoisyLatent
from fewstep.sampling import sample_latents, teacher_sigmas, velocity_field
from fewstep.testing.closeness import additions, assert_rounded_alike, assert_same_bits
from tests.backbones.families import FAMILIES, REAL_CONFIGURATIONS, Family

PROMPTS = ["a red cat", "two blue dogs in the snow"]
NEGATIVE = 'blurred, with "text" in it'
LEVELS = [1.0, 0.75, 0.5, 0.25]


@dataclass
class Case:
    """A saved tiny pipeline, its adapter, and both reloaded."""

    family: Family
    folder: Path
    adapter: ModelAdapter
    network: nn.Module
    pipeline: Any

    @property
    def tolerance(self) -> dict[str, float]:
        """Float32 sums in another order, through four network calls."""
        return {"rtol": 1e-5, "atol": self.family.tolerance}

    def noise(self, count: int = 2) -> Tensor:
        shape = self.adapter.latent_shape(self.adapter.config.height, self.adapter.config.width)
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))

    def conditioning(self, negative_prompt: str | None = None) -> tuple[Conditioning, Conditioning]:
        cond = self.adapter.encode(self.pipeline, PROMPTS)
        if negative_prompt is None:
            return cond, self.adapter.encode_null(self.pipeline)
        return cond, self.adapter.encode_negative(self.pipeline, negative_prompt)

    def ours(
        self, noise: Tensor, sigmas: Tensor, *, guidance_scale: float, negative_prompt: str | None = None
    ) -> Tensor:
        cond, null = self.conditioning(negative_prompt)
        field = velocity_field(self.adapter, self.network, cond, null, guidance_scale=guidance_scale)
        return sample_latents(field, noise, sigmas, initial_scale=self.adapter.initial_scale)

    def stock(self, noise: Tensor, *, guidance_scale: float, **call: Any) -> Tensor:
        height, width = self.adapter.config.height, self.adapter.config.width
        latents: Tensor = self.pipeline(
            PROMPTS,
            latents=self.family.pack(self.pipeline, noise),
            **self.family.grid(LEVELS),
            num_inference_steps=len(LEVELS),
            guidance_scale=guidance_scale,
            output_type="latent",
            height=height,
            width=width,
            **self.family.call,
            **call,
        ).images
        return self.family.unpack(self.pipeline, latents, height, width)


def open_case(family: Family, folder: Path, size: tuple[int, int]) -> Case:
    fields = {"kind": family.kind, "model": str(folder), "height": size[0], "width": size[1], **family.config}
    config = adapter_class(family.kind).config_class(**fields)
    adapter = create_model_adapter(folder, config)
    pipeline = adapter.load_pipeline()
    family.prepare(pipeline)
    return Case(family, folder, adapter, adapter.load_network(), pipeline)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("pipeline")
    family.build().save_pretrained(folder)
    return family, folder


@pytest.fixture(scope="module")
def case(saved: tuple[Family, Path]) -> Case:
    family, folder = saved
    return open_case(family, folder, family.size)


@pytest.fixture(scope="module")
def oblong(saved: tuple[Family, Path]) -> Case:
    family, folder = saved
    return open_case(family, folder, family.other_size)


def test_sampler_equals_the_pipeline_without_guidance(case: Case) -> None:
    noise = case.noise()
    ours = case.ours(noise, teacher_sigmas(case.adapter, len(LEVELS)), guidance_scale=1.0)
    torch.testing.assert_close(ours, case.stock(noise, guidance_scale=1.0), **case.tolerance)


def test_sampler_equals_the_pipeline_with_its_guidance(case: Case) -> None:
    noise = case.noise()
    ours = case.ours(noise, teacher_sigmas(case.adapter, len(LEVELS)), guidance_scale=4.5)
    torch.testing.assert_close(ours, case.stock(noise, guidance_scale=4.5), **case.tolerance)


def test_sampler_equals_the_pipeline_with_a_negative_prompt(case: Case) -> None:
    if case.adapter.guidance.embedded:
        pytest.skip("there is no branch whose place a negative prompt could take; test_flux.py has the error")
    noise, sigmas = case.noise(), teacher_sigmas(case.adapter, len(LEVELS))
    negative = [NEGATIVE] * len(PROMPTS)
    ours = case.ours(noise, sigmas, guidance_scale=4.5, negative_prompt=NEGATIVE)
    stock = case.stock(noise, guidance_scale=4.5, negative_prompt=negative)
    torch.testing.assert_close(ours, stock, **case.tolerance)
    assert (ours - case.ours(noise, sigmas, guidance_scale=4.5)).abs().max() > 1e-3


def test_guidance_changes_the_sample(case: Case) -> None:
    noise, sigmas = case.noise(), teacher_sigmas(case.adapter, len(LEVELS))
    plain = case.ours(noise, sigmas, guidance_scale=1.0)
    guided = case.ours(noise, sigmas, guidance_scale=4.5)
    assert (plain - guided).abs().max() > 1e-3


def test_sampler_equals_the_pipeline_on_a_picture_that_is_not_square(oblong: Case) -> None:
    noise = oblong.noise()
    ours = oblong.ours(noise, teacher_sigmas(oblong.adapter, len(LEVELS)), guidance_scale=4.5)
    torch.testing.assert_close(ours, oblong.stock(noise, guidance_scale=4.5), **oblong.tolerance)


def test_levels_are_shifted_as_the_stock_scheduler_does(case: Case) -> None:
    case.stock(case.noise(), guidance_scale=1.0)  # leaves the grid in the scheduler
    used = case.family.flow_sigma(case.pipeline.scheduler.sigmas[:-1].float())
    torch.testing.assert_close(case.adapter.sigmas(torch.tensor(LEVELS)), used, rtol=1e-6, atol=1e-6)


def test_different_prompts_in_one_batch_are_drawn_as_if_alone(case: Case) -> None:
    noise = case.noise()
    cond, _ = case.conditioning()
    sigmas = teacher_sigmas(case.adapter, 2)
    both = sample_latents(velocity_field(case.adapter, case.network, cond), noise, sigmas)
    for row in range(2):
        alone = velocity_field(case.adapter, case.network, cond.rows(slice(row, row + 1)))
        torch.testing.assert_close(
            sample_latents(alone, noise[row : row + 1], sigmas), both[row : row + 1], **case.tolerance
        )


def test_velocity_is_minus_the_slope_of_the_pipelines_own_step(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stock step from sigma to sigma - d moves x by -d velocity: the sign and scale of the velocity."""
    noise = case.noise()
    grid = torch.tensor([1.0, 0.98])
    height, width = case.adapter.config.height, case.adapter.config.width
    states: list[Tensor] = []
    step = case.pipeline.scheduler.step

    def watched(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        states.append(case.family.unpack(case.pipeline, result[0].clone(), height, width))
        return result

    # not every pipeline tells its states to a callback
    monkeypatch.setattr(case.pipeline.scheduler, "step", watched)
    case.pipeline(
        PROMPTS,
        latents=case.family.pack(case.pipeline, noise),
        **case.family.grid(grid.tolist()),
        num_inference_steps=2,
        guidance_scale=case.adapter.guidance.off,
        output_type="latent",
        height=height,
        width=width,
        **case.family.call,
    )
    sigma = case.adapter.sigmas(grid)
    cond, _ = case.conditioning()
    point = NoisyLatent(noise * case.adapter.initial_scale, sigma[:1].expand(2))
    velocity = case.adapter.velocity(case.network, point, cond)
    slope = (case.family.flow_state(states[0], sigma[1]) - point.x_sigma) / (sigma[1] - sigma[0])
    # the difference of two states of size one over a step of about .01 leaves four digits
    torch.testing.assert_close(velocity, slope, rtol=1e-3, atol=1e-3)


def test_encoding_equals_the_pipelines(case: Case) -> None:
    with torch.no_grad():
        positive, negative = case.family.encode(case.pipeline, PROMPTS, case.family.call)
    cond, null = case.conditioning()
    for mine, theirs in zip(cond.tensors.values(), positive, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    for mine, theirs in zip(null.tensors.values(), negative, strict=True):
        torch.testing.assert_close(mine, theirs[:1], rtol=1e-5, atol=1e-6)


def test_the_shapes_of_a_prompt_are_those_of_what_is_encoded(case: Case) -> None:
    shapes = case.adapter.prompt_shapes()
    for cond in case.conditioning():
        assert shapes == {
            name: PromptTensor(tuple(value.shape[1:]), None if value.is_floating_point() else value.dtype)
            for name, value in cond.tensors.items()
        }


def test_encoding_needs_neither_the_network_nor_the_vae(case: Case) -> None:
    text_only = case.adapter.load_pipeline(**{case.adapter.network_component: None, "vae": None})
    alone = case.adapter.encode(text_only, PROMPTS)
    whole, _ = case.conditioning()
    terms = sum(additions(encoder) for encoder in case.adapter.get_text_encoders(text_only))
    for name, expected in whole.tensors.items():
        assert_rounded_alike(alone.tensors[name], expected, terms=terms)


def test_decoding_equals_the_pipelines(case: Case) -> None:
    latents = 0.3 * case.noise()
    pipeline = case.pipeline
    shift = getattr(pipeline.vae.config, "shift_factor", None) or 0.0
    scaled = latents / pipeline.vae.config.scaling_factor + shift
    with torch.no_grad():
        stock = pipeline.image_processor.postprocess(
            pipeline.vae.decode(scaled, return_dict=False)[0], output_type="pt"
        )
    torch.testing.assert_close(case.adapter.decode(pipeline.vae, latents), stock, rtol=1e-6, atol=1e-6)


def test_vae_loaded_alone_decodes_the_same(case: Case) -> None:
    latents = 0.3 * case.noise()
    alone, whole = case.adapter.load_vae(), case.pipeline.vae
    assert_same_bits(alone.state_dict(), whole.state_dict())
    pixels, expected = case.adapter.decode(alone, latents), case.adapter.decode(whole, latents)
    assert_rounded_alike(pixels, expected, terms=additions(alone))


def gradients(case: Case, *, checkpointing: bool) -> dict[str, Tensor]:
    network = case.adapter.load_network()
    if checkpointing:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
    cond, _ = case.conditioning()
    point = NoisyLatent(case.noise(), torch.tensor([0.9, 0.4]))
    case.adapter.velocity(network, point, cond).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_does_not_change_gradients(case: Case) -> None:
    plain, saving = gradients(case, checkpointing=False), gradients(case, checkpointing=True)
    assert plain.keys() == saving.keys()
    for name in plain:
        torch.testing.assert_close(saving[name], plain[name], rtol=1e-6, atol=1e-8)


def test_every_parameter_receives_a_gradient_except_those_declared(case: Case) -> None:
    found = gradients(case, checkpointing=False)
    names = [name for name, _ in case.network.named_parameters()]
    still = {name for name in names if name not in found or not found[name].any()}
    declared = {name for name in names if any(fnmatch.fnmatch(name, rule) for rule in case.adapter.never_trained)}
    assert still == declared


def test_velocity_is_float32_under_a_bfloat16_network(case: Case) -> None:
    network = case.adapter.load_network(dtype=torch.bfloat16)
    cond, _ = case.conditioning()
    point = NoisyLatent(case.noise(), torch.tensor([0.999, 0.4]))
    case.adapter.compute_dtype = torch.bfloat16
    try:
        low = case.adapter.velocity(network, point, cond)
    finally:
        case.adapter.compute_dtype = torch.float32
    full = case.adapter.velocity(case.network, point, cond)
    assert low.dtype == torch.float32
    # bfloat16 keeps eight bits; three blocks of it stay within a few per cent of the largest value
    torch.testing.assert_close(low, full, rtol=0, atol=0.05 * float(full.abs().max().detach()))


def test_documented_cdm_names_answer(case: Case) -> None:
    cond, null = case.conditioning()
    point = NoisyLatent(case.noise(), torch.tensor([0.9, 0.4]))
    adapter, network = case.adapter, case.network
    with torch.no_grad():
        student = adapter.student_forward(network, point, cond)
        teacher = adapter.teacher_forward(network, point, cond, null.expand(2), guidance_scale=adapter.guidance.off)
    assert torch.equal(student, teacher)
    assert len(adapter.get_tokenizers(case.pipeline)) == len(adapter.get_text_encoders(case.pipeline)) >= 1
    assert adapter.get_lora_target_modules() == list(adapter.lora_targets)


def modules_matching(network: nn.Module, suffix: str) -> list[str]:
    return [name for name, _ in network.named_modules() if name == suffix or name.endswith(f".{suffix}")]


def takes_low_rank_factors(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def test_lora_targets_and_blocks_exist(case: Case) -> None:
    classes = {type(module).__name__ for module in case.network.modules()}
    assert set(case.adapter.block_classes) <= classes
    for target in case.adapter.lora_targets:
        found = modules_matching(case.network, target)
        assert found, target
        assert all(takes_low_rank_factors(case.network.get_submodule(name)) for name in found)


# tokens and width of the embeddings, then the pooled vector or the mask, at the settings that the pipelines have
REAL_PROMPTS: dict[str, tuple[tuple[int, int], list[tuple[int]]]] = {
    **dict.fromkeys(("sd3-medium", "sd35-medium", "sd35-large"), ((77 + 256, 4096), [(2048,)])),
    "flux1-dev": ((512, 4096), [(768,)]),
    "longcat-image": ((512, 3584), []),
    **dict.fromkeys(("sana-600m", "sana-1600m"), ((300, 2304), [(300,)])),
    "pixart-sigma": ((300, 4096), [(300,)]),
    "sd15": ((77, 768), []),
    "sd21": ((77, 1024), []),
    "sdxl": ((77, 2048), [(1280,)]),
}


@pytest.fixture(params=sorted(REAL_CONFIGURATIONS))
def on_meta(request: pytest.FixtureRequest) -> tuple[ModelAdapter, nn.Module, int]:
    real = REAL_CONFIGURATIONS[request.param]
    kind = adapter_class(real.kind)
    config = kind.config_class(kind=real.kind, model=request.param)
    with torch.device("meta"):
        network = getattr(importlib.import_module("diffusers"), real.network_class).from_config(
            real.components[kind.network_component]
        )
    return kind(config, real.components), network, real.num_parameters


def test_real_configuration_has_the_published_size(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    _, network, expected = on_meta
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_real_configuration_has_the_published_shapes_of_a_prompt(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    adapter, _, _ = on_meta
    embeds, *others = (tensor.shape for tensor in adapter.prompt_shapes().values())
    assert (embeds, others) == REAL_PROMPTS[adapter.config.model]


def test_real_configuration_has_every_lora_target_and_block(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    adapter, network, _ = on_meta
    assert all(modules_matching(network, target) for target in adapter.lora_targets)
    assert set(adapter.block_classes) <= {type(module).__name__ for module in network.modules()}


def test_attention_never_makes_its_matrix(case: Case) -> None:
    class Asked(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.functions: set[Any] = set()

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.functions.add(func)
            return func(*args, **(kwargs or {}))

    noise = case.noise()
    cond, _ = case.conditioning()
    with torch.no_grad(), Asked() as asked:
        case.adapter.velocity(case.network, NoisyLatent(noise, torch.full((2,), 0.5)), cond)
    assert functional.scaled_dot_product_attention in asked.functions
    assert not asked.functions & {torch.softmax, functional.softmax, Tensor.softmax}
