"""What PixArt-Sigma, Stable Diffusion 1 and 2, and SDXL have in common.

Their networks predict the noise (or SD 2.1's mixture of noise and data) of a variance-preserving state at an integer
time. The exact change of variables of :mod:`fewstep.core.vp` makes flow models of them; the largest noise level stays
below 1, and drawing starts there from standard normal noise as their own samplers do.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.vp_schedule import VPSchedule
from fewstep.core import vp
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent


class VariancePreservingAdapter(DiffusersAdapter):
    """The questions of :class:`ModelAdapter`, answered for pipelines around an epsilon- or v-prediction network.

    A family says how its network is called, :meth:`predict`, and how its pipeline embeds prompts.
    """

    pipeline_unit: ClassVar[int] = 8
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.schedule = VPSchedule(self.scheduler_config, model=config.model)

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

    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        return self.schedule.deterministic_scheduler()

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        call = super().call_kwargs(sigmas)
        del call["sigmas"]  # these pipelines' samplers are told their time steps
        return {**call, "timesteps": self.schedule.whole_times(sigmas)}
