"""What PixArt-Sigma, Stable Diffusion 1 and 2, and SDXL have in common.

Their networks predict the noise (or SD 2.1's mixture of noise and data) of a variance-preserving state at an integer
time. The exact change of variables of :mod:`fewstep.core.vp` makes flow models of them; the largest noise level stays
below 1, and drawing starts there from standard normal noise as their own samplers do.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.pipeline_folder import write_pipeline_folder
from fewstep.backbones.protocol import BackboneConfig, Conditioning, ModelAdapter
from fewstep.backbones.source import load_component, loading, locate, quiet_imports
from fewstep.backbones.vp_schedule import VPSchedule
from fewstep.core import vp
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError

PIPELINE_UNIT = 8
"""These pipelines take multiples of this many pixels, whatever their VAE."""


class VariancePreservingAdapter(ModelAdapter):
    """The questions of :class:`ModelAdapter`, answered for pipelines around an epsilon- or v-prediction network.

    A family says how its network is called, :meth:`predict`, and how its pipeline embeds prompts.
    """

    network_class: ClassVar[str]
    patch_size: int = 1
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.schedule = VPSchedule(components["scheduler"], model=config.model)
        self.network_config = components[self.network_component]
        self.vae_config = components["vae"]
        self.patch_size = int(self.network_config.get("patch_size") or 1)
        self.latent_shape(config.height, config.width)  # a size that does not fit is an error before anything is loaded

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        side = int(components[cls.network_component]["sample_size"]) * _vae_factor(components["vae"])
        return cls.config_class(kind=cls.kind, model=model, revision=revision, height=side, width=side)

    # The maths' side.

    @abstractmethod
    def predict(self, network: nn.Module, x_t: Tensor, time: Float[Tensor, "b"], cond: Conditioning) -> Tensor:
        """Call ``network`` on a variance-preserving state; the prediction's channels alone, in any dtype."""

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        x_t = vp.to_vp(point.x_sigma, point.sigma).to(self.compute_dtype)
        # the time stays float32 under any compute dtype: bfloat16 cannot tell 999 from 1000
        prediction = self.predict(network, x_t, self.schedule.time(point.sigma), cond)
        if self.schedule.prediction == "epsilon":
            return vp.velocity_from_epsilon(point.x_sigma, prediction, point.sigma)
        return vp.velocity_from_v_prediction(point.x_sigma, prediction, point.sigma)

    def to_sigma(self, level: Tensor) -> Tensor:
        return self.schedule.sigma(level)

    @property
    def sigma_max(self) -> float:
        return self.schedule.sigma_max

    @property
    def initial_scale(self) -> float:
        # the networks' own samplers take standard normal noise for the state of the last time step
        return 1.0 / float(vp.state_scale(torch.tensor(self.sigma_max)))

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        factor = _vae_factor(self.vae_config)
        unit = math.lcm(PIPELINE_UNIT, factor * self.patch_size)
        if height % unit or width % unit:
            raise ConfigError(
                f"{height} x {width} pixels do not fit {self.config.model}: "
                f"height and width must be multiples of {unit}; the nearest below are {height // unit * unit} x "
                f"{width // unit * unit} (backbone.height, backbone.width)."
            )
        return int(self.network_config["in_channels"]), height // factor, width // factor

    # The files' side.

    def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        return self._load(self.network_component, self.network_class, dtype)

    def load_vae(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        return self._load("vae", "AutoencoderKL", dtype)

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        with quiet_imports():
            import diffusers

            pipeline_class = getattr(diffusers, self.pipeline_class)
        with loading(self.config.model, self.config.revision, f"the pipeline {self.config.model}"):
            pipeline = pipeline_class.from_pretrained(
                locate(self.config.model),
                revision=self.config.revision,
                dtype=dtype,
                **{**self.not_loaded(), **components},
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def not_loaded(self) -> dict[str, Any]:
        """Arguments that keep components which neither embed prompts nor decode latents out of memory."""
        return {}

    @torch.no_grad()
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 h w"]:
        latents = x0.float() / self.vae_config["scaling_factor"]
        pixels = vae.decode(latents.to(next(vae.parameters()).dtype), return_dict=False)[0]  # type: ignore[operator]
        scaled: Tensor = (pixels.float() / 2 + 0.5).clamp(0, 1)
        return scaled

    def student_scheduler(self) -> Any:
        return self.schedule.deterministic_scheduler()

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {
            "num_inference_steps": len(sigmas),
            "timesteps": self.schedule.whole_times(sigmas),
            "guidance_scale": 1.0,
            "height": self.config.height,
            "width": self.config.width,
        }

    def load_kwargs(self) -> dict[str, Any]:
        return {}

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

    def get_text_encoders(self, pipeline: Any) -> list[nn.Module]:
        return [part for part in _numbered(pipeline, "text_encoder") if part is not None]

    def get_tokenizers(self, pipeline: Any) -> list[Any]:
        return [part for part in _numbered(pipeline, "tokenizer") if part is not None]

    def _load(self, component: str, class_name: str, dtype: torch.dtype) -> nn.Module:
        return load_component(self.config.model, self.config.revision, component, class_name, dtype)


def _vae_factor(vae: Mapping[str, Any]) -> int:
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _numbered(pipeline: Any, name: str) -> list[Any]:
    return [pipeline.components[key] for key in (name, f"{name}_2") if key in pipeline.components]
