"""What FLUX and LongCat-Image have in common: flow matching on packed latents."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

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
    """The answers that do not depend on which of the two families asks."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.lora_targets = _lora_targets(int(self.network_config["num_single_layers"]))

    @property
    def patch_size(self) -> int:
        return packed.PATCH  # the networks' own patch_size is 1: it counts tokens, which the pipeline packs before

    @property
    def latent_channels(self) -> int:
        return int(self.network_config["in_channels"]) // packed.PATCH**2

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


def _lora_targets(num_single_blocks: int) -> tuple[str, ...]:
    # bare proj_out would also match the network's output layer
    single = (f"single_transformer_blocks.{i}.proj_out" for i in range(num_single_blocks))
    return (*(f"attn.{name}" for name in ATTENTION), *_FEED_FORWARD, *single)
