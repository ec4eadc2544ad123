"""Real training steps of random networks of chosen sizes, with the memory of their tensors counted."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fewstep.backbones.sd3 import SD3Adapter
from fewstep.config import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.distributed.sharding import build_mesh
from fewstep.distributed.world import join
from fewstep.planning.measured import PeakMeter, resident
from fewstep.roles.build import build_roles
from fewstep.training.run import role_settings
from fewstep.training.trainer import Trainer
from tests.backbones import tiny

SHORT = ["schedule={kind: fixed, levels: [1.0, 0.5]}", "budget.student_updates=1", "report.sheet_every=null"]
PICTURE = ["backbone.height=128", "backbone.width=128", "backbone.max_sequence_length=19"]


class RandomSD3(SD3Adapter):
    """A network with random weights instead of a checkpoint's."""

    def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        from diffusers import SD3Transformer2DModel

        network: nn.Module = SD3Transformer2DModel.from_config(dict(self.network_config))
        return network.to(dtype).eval()


class RandomEmbeddings:
    def __init__(self, width: int, pooled: int, tokens: int) -> None:
        self.shapes = {"prompt_embeds": (tokens, width), "pooled_prompt_embeds": (pooled,)}

    def __len__(self) -> int:
        return 8

    def batch(self, indices: Sequence[int]) -> Conditioning:
        return Conditioning({name: torch.randn(len(indices), *shape) for name, shape in self.shapes.items()})

    @property
    def null(self) -> Conditioning:
        return self.batch([0])


def adapter_of(config: RunConfig, *, layers: int, heads: int) -> RandomSD3:
    network = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": 64,
        "caption_projection_dim": 64 * heads,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 32,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "sample_size": 16,
        "pos_embed_max_size": 16,
    }
    components: dict[str, dict[str, Any]] = {
        "model_index": {"_class_name": "StableDiffusion3Pipeline"},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        "vae": {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 1.5, "shift_factor": 0.06},
        "transformer": network,
    }
    return RandomSD3(config.backbone, tiny.whole(components, "SD3Transformer2DModel"))


def config_of(*overrides: str) -> RunConfig:
    return load_recipe("sd3-medium", [*PICTURE, *SHORT, "batch=2", "precision.compute=fp32", *overrides]).config


def measured_peak(config: RunConfig, adapter: RandomSD3) -> int:
    """Bytes of tensors alive at most over one fake-score step and one student step, on this process alone."""
    device = torch.device("cpu")
    with join(device, timeout_minutes=1.0) as world:
        settings = role_settings(config)
        roles = build_roles(adapter, settings, world, build_mesh(world, alone=settings.spread_alone))
        network = adapter.network_config
        embeddings = RandomEmbeddings(
            network["joint_attention_dim"], network["pooled_projection_dim"], adapter.num_prompt_tokens
        )
        trainer = Trainer(config, adapter, roles, embeddings, device, world=world)
        networks = [role.network for role in (roles.student, roles.teacher, roles.fake_score)]
        with PeakMeter(device, resident(networks, trainer.state_dict())) as meter:
            for _ in range(trainer.total_steps):
                trainer.run_step()
    return meter.peak
