"""A saved tiny pipeline as the suite compares it: drawn by the stock call, and by our sampler."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.sampling import sample_latents, velocity_field
from fewstep.testing.family import Family

PROMPTS = ("a red cat", "two blue dogs in the snow")
LEVELS = (1.0, 0.75, 0.5, 0.25)


@dataclass(repr=False)
class Case:
    """A saved tiny pipeline at one size, its adapter, and network and pipeline reloaded through that."""

    family: Family
    folder: Path
    adapter: ModelAdapter
    network: nn.Module
    pipeline: Any
    _encoded: dict[str | None, tuple[Conditioning, Conditioning]] = field(default_factory=dict)
    _drawn: dict[tuple[float | None, str | None], Tensor] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.adapter.config.height, self.adapter.config.width

    def __repr__(self) -> str:
        return f"<{self.family} at {self.size[0]} x {self.size[1]}>"

    def require_other_latents(self, actual: Tensor, expected: Tensor) -> None:
        """They differ by so much more that a comparison up to rounding says something."""
        largest, least = float((actual - expected).abs().max()), 10 * self.family.tolerance
        assert largest > least, f"these differ by {largest:.2g}, not by {least:.2g}: prompts are hardly heard"

    def require_same_latents(self, actual: Tensor, expected: Tensor, *, times: float = 1.0) -> None:
        """Float32 sums in another order, through four network calls, are all that may differ, or so many times it."""
        torch.testing.assert_close(actual, expected, rtol=times * 1e-5, atol=times * self.family.tolerance)

    @property
    def guided(self) -> float:
        """A guidance scale that is not off, as the pipeline counts it."""
        return self.adapter.guidance.scale(4.5)

    def noise(self, count: int = len(PROMPTS)) -> Tensor:
        """The same noise every time, in our layout."""
        shape = self.adapter.latent_shape(*self.size)
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))

    def point(self) -> NoisyLatent:
        """A sample with much noise and one with less."""
        return NoisyLatent(self.noise(), torch.tensor([0.9, 0.4]))

    @torch.no_grad()
    def conditioning(self, negative_prompt: str | None = None) -> tuple[Conditioning, Conditioning]:
        """What the network is told about the prompts, and in the unconditional branch; encoded once."""
        if negative_prompt not in self._encoded:
            adapter, pipeline = self.adapter, self.pipeline
            null = (
                adapter.encode_null(pipeline)
                if negative_prompt is None
                else adapter.encode_negative(pipeline, negative_prompt)
            )
            self._encoded[negative_prompt] = adapter.encode(pipeline, PROMPTS), null
        return self._encoded[negative_prompt]

    @torch.no_grad()
    def velocity(self, network: nn.Module) -> Tensor:
        """What a network answers at :meth:`point`."""
        return self.adapter.velocity(network, self.point(), self.conditioning()[0])

    def ours(self, *, guidance_scale: float | None = None, negative_prompt: str | None = None) -> Tensor:
        """Clean latents by our sampler, drawn once; without a scale, without guidance."""
        asked = (guidance_scale, negative_prompt)
        if asked not in self._drawn:
            cond, null = self.conditioning(negative_prompt)
            velocity = velocity_field(self.adapter, self.network, cond, null, guidance_scale=guidance_scale)
            sigmas, scale = self.adapter.sigmas(torch.tensor(LEVELS)), self.adapter.initial_scale
            self._drawn[asked] = sample_latents(velocity, self.noise(), sigmas, initial_scale=scale)
        return self._drawn[asked]

    def stock(self, *, prompts: Sequence[str] = PROMPTS, levels: Sequence[float] = LEVELS, **changes: Any) -> Tensor:
        """Clean latents by the stock call, in our layout; see :meth:`call`."""
        return self.unpack(self.call(self.noise(len(prompts)), prompts=prompts, levels=levels, **changes))

    def call(
        self,
        noise: Tensor,
        *,
        prompts: Sequence[str] = PROMPTS,
        levels: Sequence[float] = LEVELS,
        guidance_scale: float | None = None,
        **changes: Any,
    ) -> Any:
        """What the stock call gives, from noise in our layout.

        Args:
            levels: Noise levels before the time shift.
            guidance_scale: As the pipeline counts it; None is without guidance.
            changes: Arguments of the call beside those that the adapter gives for an exported student.
        """
        guidance = self.adapter.guidance
        arguments = {
            "prompt": list(prompts),  # diffusers' Z-Image pipeline writes into the list that it is given
            "latents": self.family.pack(self.pipeline, noise),
            "output_type": "latent",
            **self.adapter.call_kwargs(self.adapter.sigmas(torch.tensor(levels)).tolist()),
            **guidance.call(guidance.off if guidance_scale is None else guidance_scale, num_prompts=len(prompts)),
            "sigmas": list(levels),
            **self.family.call,
            **changes,
        }
        return self.family.stock_call(self.pipeline, arguments)

    def unpack(self, latents: Tensor) -> Tensor:
        """The stock pipeline's latents in our layout."""
        return self.family.unpack(self.pipeline, latents, *self.size)

    def run_config(self) -> RunConfig:
        """Settings of a run of two steps with every term that the family has."""
        # half the margin of SD3.5: the first segment of PixArt's grid is .0485 wide
        terms: dict[str, Any] = {"ca": {"scale": 2.0}, "dm": {}, "cdm": {}, "isg": {"margin": 0.02}, "dp": {"steps": 2}}
        if self.adapter.config.without_guidance() is not None:
            del terms["ca"]
        if not self.adapter.config.guided:
            terms["isg"]["guidance"] = {"low": 1.0, "high": 1.0}
            terms["dp"]["guidance_scale"] = 1.0
        return RunConfig.model_validate(
            {
                "backbone": self.adapter.config.model_dump(mode="json"),
                "prompts": {"kind": "file", "path": "not-read.txt"},
                "schedule": {"kind": "random_length", "min_steps": 2, "max_steps": 3},
                "terms": terms,
                "student": {"lr": 1e-3, "every": 1, "warmup": 0},
                "fake_score": {"lr": 1e-3, "warmup": 0},
                "batch": 2,
                "budget": {"student_updates": 2},
                "precision": {"compute": "fp32"},
            }
        )


def save(family: Family, folder: Path) -> Path:
    """Write the family's tiny pipeline as a diffusers folder; the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        family.build().save_pretrained(folder)
    return folder


def open_adapter(family: Family, folder: Path, size: tuple[int, int] | None = None) -> ModelAdapter:
    """The adapter of a saved pipeline, for pictures of the family's size or of another one."""
    height, width = size or family.size
    fields = {"kind": family.kind, "model": str(folder), "height": height, "width": width, **family.config}
    return create_model_adapter(folder, adapter_class(family.kind).config_class(**fields))


def open_case(family: Family, folder: Path, size: tuple[int, int] | None = None) -> Case:
    """Load a saved pipeline for the suite."""
    adapter = open_adapter(family, folder, size)
    pipeline = adapter.load_pipeline()
    family.prepare(pipeline)
    return Case(family, folder, adapter, adapter.load_network(), pipeline)
