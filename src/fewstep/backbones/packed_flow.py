"""Flow matching on packed latents: what FLUX, LongCat-Image, Chroma and Qwen-Image have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones import packed
from fewstep.backbones.flow_match import FlowMatchAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")


class PackedFlowAdapter(FlowMatchAdapter):
    """The answers that do not depend on which family asks; the network's time is sigma itself."""

    patch: ClassVar[int] = packed.PATCH
    """Latents along one side of a token. The networks' own patch_size is 1: it counts tokens, packed before."""

    @property
    def patch_size(self) -> int:
        return self.patch

    @property
    def latent_channels(self) -> int:
        return int(self.network_config["in_channels"]) // self.patch**2

    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        height, width = point.x_sigma.shape[-2:]
        image = packed.pack(point.x_sigma.to(self.compute_dtype), self.patch)
        arguments = {
            "hidden_states": image,
            "timestep": self.network_time(point.sigma),
            "encoder_hidden_states": cond.tensors["prompt_embeds"].to(self.compute_dtype),
            **self.network_inputs(point.x_sigma, cond),
        }
        tokens = network(**arguments, return_dict=False)[0][:, -image.shape[1] :]  # some answer for text before it
        return packed.unpack(tokens.float(), height, width, self.patch)

    def network_time(self, sigma: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The time that the pipeline gives its network, rounded as it rounds."""
        return packed.thousandths(sigma, self.compute_dtype)

    @abstractmethod
    def network_inputs(self, x_sigma: Float[Tensor, "b *latent"], cond: Conditioning) -> dict[str, Any]:
        """The arguments of the network that only this family has; positions among them."""


class FluxBlocksAdapter(PackedFlowAdapter):
    """A network made of FLUX.1's two kinds of blocks."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        # bare proj_out would also match the network's output layer
        blocks = range(int(self.network_config["num_single_layers"]))
        single = (f"single_transformer_blocks.{block}.proj_out" for block in blocks)
        self.lora_targets = (*(f"attn.{name}" for name in ATTENTION), *_FEED_FORWARD, *single)
