"""What every backbone around a diffusers pipeline has in common: its files, sizes, prompts, decoding, its call.

A family adds its clock, how its network is asked and how its pipeline embeds prompts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.finite import require_finite
from fewstep.backbones.pipeline_files import PipelineFiles
from fewstep.backbones.protocol import BackboneConfig
from fewstep.core.conditioning import PromptTensor
from fewstep.errors import ConfigError

_CLIP_TOKENS = 77
"""Of every published CLIP."""
# some networks turn a width of the first names into one of the last
_WIDTHS = ("caption_channels", "joint_attention_dim", "cross_attention_dim", "text_dim", "text_embed_dim")


class DiffusersAdapter(PipelineFiles):
    """The questions of :class:`ModelAdapter` whose answer is the same for most pipelines."""

    latents_have_statistics: ClassVar[bool] = False
    """The VAE's configuration has a mean and a deviation per channel instead of one scale."""
    vae_has_frames: ClassVar[bool] = False
    """The VAE is one of videos, of which a picture is one frame."""
    pipeline_unit: ClassVar[int] = 1
    """The pipeline takes multiples of this many pixels, whatever its VAE."""
    default_latent_side: ClassVar[int] = 128
    """Of the pipeline's own default picture, in latents, where the network's configuration does not say it."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        if not self.latents_have_statistics:
            _require_plain_latents(self.vae_config, model=config.origin)
        for height, width in ((config.height, config.width), *config.sizes):
            self.latent_shape(height, width)  # a size that does not fit is an error before anything is loaded

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        # not every network has a size of its own, and some may be trained at two numbers
        stated = cls.component(components, cls.network_component, model=model).get("sample_size")
        latents = stated if isinstance(stated, int) else cls.default_latent_side
        side = latents * cls.vae_factor(cls.component(components, "vae", model=model))
        return cls.config_class(kind=cls.kind, model=model, revision=revision, height=side, width=side)

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        """Pixels along one side of a latent."""
        return int(2 ** (len(vae["block_out_channels"]) - 1))

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The scheduler's configuration; ConfigError when there is none."""
        if "scheduler" not in self.components:
            raise ConfigError(
                f"{self.config.model} has no scheduler, so nothing tells the noise levels that its network was trained "
                "on. Get the model again, or copy the original's scheduler folder."
            )
        return self.components["scheduler"]

    @property
    def patch_size(self) -> int:
        """Latents along one side of an image token."""
        return int(self.network_config["patch_size"]) if "patch_size" in self.network_config else 1

    @property
    def latent_channels(self) -> int:
        return int(self.network_config["in_channels"])

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        factor = self.vae_factor(self.vae_config)
        unit = math.lcm(self.pipeline_unit, factor * self.patch_size)
        if height % unit or width % unit:
            raise ConfigError(
                f"{height} x {width} pixels do not fit {self.config.model}: "
                f"height and width must be multiples of {unit}; the nearest below are {height // unit * unit} x "
                f"{width // unit * unit} (backbone.height, backbone.width)."
            )
        return self.latent_channels, height // factor, width // factor

    def latent_frames(self, frames: int, *, together: int, unit: int | None = None) -> int:
        """Latents of so many frames: the first is one of its own, and ``together`` more make the next.

        Args:
            unit: Frames behind the first come in multiples of it; None is ``together``.

        Raises:
            ConfigError: The VAE does not give so many frames back.
        """
        multiple = together if unit is None else unit
        if frames % multiple != 1 % multiple:
            raise ConfigError(
                f"{frames} frames do not fit {self.config.model}: they are one and a multiple of {multiple}; the "
                f"nearest below are {max(frames - 1, 0) // multiple * multiple + 1} (backbone.frames)."
            )
        return (frames - 1) // together + 1

    @property
    def declared_tokens(self) -> int | None:
        """``backbone.max_sequence_length``, where the family's config has one; its pipeline's call takes it."""
        stated = getattr(self.config, "max_sequence_length", None)
        return None if stated is None else int(stated)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that every prompt is padded to: as many as are declared, or as CLIP takes."""
        return self.clip_tokens if self.declared_tokens is None else self.declared_tokens

    @property
    def clip_tokens(self) -> int:
        """Tokens of the first text encoder, a CLIP, whose configuration not every description of a model holds."""
        return int(self.components.get("text_encoder", {}).get("max_position_embeddings", _CLIP_TOKENS))

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        """One row of numbers for each token, as wide as the network takes it; families with more override it."""
        stated = (self.network_config.get(key) for key in _WIDTHS)
        width = next((number for number in stated if isinstance(number, int)), None)
        if width is None:
            raise ConfigError(
                f"The {self.network_component} of {self.config.model} does not say how wide the embeddings of prompts "
                f"are ({', '.join(_WIDTHS)}); its adapter {type(self).__name__} has to, in prompt_shapes()."
            )
        return {"prompt_embeds": PromptTensor((self.num_prompt_tokens, width))}

    @torch.no_grad()
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 *size"]:
        require_finite([x0], model=self.config.model, parts={"network": None})
        latents = self._vae_latents(vae, x0.float()).to(next(vae.parameters()).dtype)
        if self.vae_has_frames:
            latents = latents.unsqueeze(2)
        pixels = vae.decode(latents, return_dict=False)[0]  # type: ignore[operator]
        if self.vae_has_frames:
            pixels = pixels[:, :, 0]
        require_finite([pixels], model=self.config.model, parts={"VAE": vae})
        scaled: Tensor = (pixels.float() / 2 + 0.5).clamp(0, 1)
        return scaled

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {
            "num_inference_steps": len(sigmas),
            "sigmas": [float(sigma) for sigma in sigmas],
            self.guidance.argument: self.guidance.off,
            "height": self.config.height,
            "width": self.config.width,
            **({} if self.declared_tokens is None else {"max_sequence_length": self.declared_tokens}),
        }

    def get_text_encoders(self, pipeline: Any) -> list[nn.Module]:
        return _present(pipeline, "text_encoder")

    def get_tokenizers(self, pipeline: Any) -> list[Any]:
        return _present(pipeline, "tokenizer")

    def token_limits(self, pipeline: Any) -> list[int]:
        # where there are several, the last is the one that takes long prompts
        limits = super().token_limits(pipeline)
        return limits if self.declared_tokens is None else [*limits[:-1], self.declared_tokens]

    def _vae_latents(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *vae"]:
        """What the VAE decodes, of the latents that the network sees."""
        if self.latents_have_statistics:
            mean, std = (x0.new_tensor(self.vae_config[f"latents_{name}"]) for name in ("mean", "std"))
            per_channel = (-1, *[1] * (x0.ndim - 2))
            return x0 * std.view(per_channel) + mean.view(per_channel)
        shift = self.vae_config.get("shift_factor")  # not every VAE class knows one, and null is none
        return x0 / float(self.vae_config["scaling_factor"]) + (0.0 if shift is None else float(shift))


def _require_plain_latents(vae: Mapping[str, Any], *, model: str) -> None:
    given = [name for name in ("latents_mean", "latents_std") if vae.get(name) is not None]
    if given:
        raise ConfigError(
            f"The VAE of {model} normalises latents by {given[0]}, as retrainings of SDXL on another noise schedule "
            "do; this backbone knows the plain scaling_factor and shift_factor only. Use the original checkpoint's VAE."
        )


def _present(pipeline: Any, name: str) -> list[Any]:
    """The pipeline's components ``name``, ``name_2``, ``name_3`` that there are."""
    parts = (pipeline.components.get(key) for key in (name, f"{name}_2", f"{name}_3"))
    return [part for part in parts if part is not None]
