"""What a block keeps of its forward, and what its backward computes again (``memory.gradient_checkpointing``)."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from fewstep.roles.lora import LoraSwitch

Recomputation = bool | Literal["selective"]

# the expensive results: matrix products and attention
_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def enable_recomputation(network: nn.Module, kind: Recomputation, switch: LoraSwitch | None) -> None:
    """Let a diffusers network recompute its blocks in the backward.

    Args:
        network: Has ``enable_gradient_checkpointing``, as every diffusers network does.
        kind: ``True`` recomputes whole blocks; ``selective`` keeps matrix products and attention and recomputes what
            is cheap; ``False`` recomputes nothing.
        switch: Of a network with low-rank factors.
    """
    if kind is False:
        return
    enable = network.enable_gradient_checkpointing
    assert callable(enable)
    enable(gradient_checkpointing_func=_recomputing(kind, switch))


def _recomputing(kind: Recomputation, switch: LoraSwitch | None) -> Callable[..., Any]:
    """The function that runs a block under checkpointing.

    The recomputation happens in the backward, when other factors may act or none: it would give another network's
    gradients without an error. So the factors that acted in the forward act in it again.
    """
    contexts: dict[str, Any] = {}
    if kind == "selective":
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def run(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        role = None if switch is None else switch.active

        def forward(*inner: Any, **named: Any) -> Any:
            with nullcontext() if switch is None else switch.use(role):
                return block(*inner, **named)

        # dropout is off in every role, so there is no generator state to preserve
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs)

    return run


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
