"""What FLUX and LongCat-Image have in common: flow matching on packed latents, a dynamic shift, a KL autoencoder."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones import flow_match, packed
from fewstep.backbones.pipeline_folder import write_pipeline_folder
from fewstep.backbones.protocol import BackboneConfig, Conditioning, ModelAdapter
from fewstep.backbones.source import load_component, loading, locate, quiet_imports
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")
DEFAULT_LATENT_SIDE = 128
"""Of the pipelines' own default picture, in latents."""


class PackedFlowAdapter(ModelAdapter):
    """The answers that do not depend on which of the two families asks."""

    network_class: ClassVar[str]

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        flow_match.require_plain_shift(components["scheduler"], model=config.model)
        self.network_config = components["transformer"]
        self.vae_config = components["vae"]
        self.lora_targets = _lora_targets(int(self.network_config["num_single_layers"]))
        self.latent_shape(config.height, config.width)  # a size that does not fit is an error before anything is loaded

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        side = DEFAULT_LATENT_SIDE * _vae_factor(components["vae"])
        return cls.config_class(kind=cls.kind, model=model, revision=revision, height=side, width=side)

    # The maths' side.

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        height, width = point.x_sigma.shape[-2:]
        output = network(
            hidden_states=packed.pack(point.x_sigma.to(self.compute_dtype)),
            timestep=packed.thousandths(point.sigma, self.compute_dtype),
            encoder_hidden_states=cond.tensors["prompt_embeds"].to(self.compute_dtype),
            return_dict=False,
            **self._inputs(point.x_sigma, cond),
        )[0]
        return packed.unpack(output.float(), height, width)

    @abstractmethod
    def _inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        """The arguments of the network that only one of the families has; positions among them."""

    def to_sigma(self, level: Tensor) -> Tensor:
        _, height, width = self.latent_shape(self.config.height, self.config.width)
        tokens = (height // packed.PATCH) * (width // packed.PATCH)
        return flow_match.shift_level(level, self.components["scheduler"], num_tokens=tokens)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        factor = _vae_factor(self.vae_config)
        unit = factor * packed.PATCH
        if height % unit or width % unit:
            raise ConfigError(
                f"{height} x {width} pixels do not fit {self.config.model}: "
                f"height and width must be multiples of {unit}; the nearest below are {height // unit * unit} x "
                f"{width // unit * unit} (backbone.height, backbone.width)."
            )
        return int(self.network_config["in_channels"]) // packed.PATCH**2, height // factor, width // factor

    # The files' side.

    def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        return load_component(self.config.model, self.config.revision, "transformer", self.network_class, dtype)

    def load_vae(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        return load_component(self.config.model, self.config.revision, "vae", "AutoencoderKL", dtype)

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        with quiet_imports():
            import diffusers

            pipeline_class = getattr(diffusers, self.pipeline_class)
        with loading(self.config.model, self.config.revision, f"the pipeline {self.config.model}"):
            pipeline = pipeline_class.from_pretrained(
                locate(self.config.model),
                revision=self.config.revision,
                dtype=dtype,
                **{**self.load_kwargs(), **components},
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @torch.no_grad()
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 h w"]:
        latents = x0.float() / self.vae_config["scaling_factor"] + (self.vae_config.get("shift_factor") or 0.0)
        pixels = vae.decode(latents.to(next(vae.parameters()).dtype), return_dict=False)[0]  # type: ignore[operator]
        scaled: Tensor = (pixels.float() / 2 + 0.5).clamp(0, 1)
        return scaled

    def student_scheduler(self) -> Any:
        return flow_match.scheduler_of_given_sigmas(self.components["scheduler"])

    def save_pipeline(self, network: nn.Module, folder: Path) -> None:
        write_pipeline_folder(
            folder,
            network,
            self.student_scheduler(),
            model=self.config.model,
            revision=self.config.revision,
            model_index=self.components["model_index"],
            network_component=self.network_component,
        )


def _vae_factor(vae: Mapping[str, Any]) -> int:
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _lora_targets(num_single_blocks: int) -> tuple[str, ...]:
    # bare proj_out would also match the network's output layer
    single = (f"single_transformer_blocks.{i}.proj_out" for i in range(num_single_blocks))
    return (*(f"attn.{name}" for name in ATTENTION), *FEED_FORWARD, *single)
