"""torch.compile of a network's blocks (``memory.compiled``).

Block by block: one compilation serves all blocks of a shape, and graphs end where groups of weights are gathered.
Modes have torch's names. Those that record CUDA graphs do so for forwards without a gradient, and what is trained runs
in the same mode without them: a recording's memory is written again by the next one, a graph's activations have to
stay until its backward.
"""

from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from torch import fx, nn

from fewstep.distributed.world import World
from fewstep.errors import ConfigError

Compilation = bool | Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Whether blocks are compiled; true is torch's default mode."""

# modes that record CUDA graphs, and what the forwards with a gradient run in
_WITHOUT_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
# torch keeps 8 compilations of a function and then runs the rest uncompiled. A block of Stable Diffusion 3 has two
# shapes, each with and without a gradient, for every role and for a batch of one: more than that
_COMPILATIONS = 64


def records_graphs(kind: Compilation) -> bool:
    """Whether a kind of compilation records CUDA graphs, for which weights must stay where they are."""
    return kind in _WITHOUT_GRAPHS


def _tried(kind: Compilation) -> bool:
    # with shapes left open, torch 2.13 chose a batched product for 6 samples and then gave it the next call's 2
    return kind in ("max-autotune", "max-autotune-no-cudagraphs")


def require_graphs(kind: Compilation, world: World) -> None:
    """Check, before anything is loaded, that this run can record CUDA graphs if it is to.

    Raises:
        ConfigError: The device has none, or weights would move because several processes share them.
    """
    if not records_graphs(kind):
        return
    if world.device.type != "cuda":
        raise ConfigError(
            f"memory.compiled is {kind}, which records CUDA graphs, but this run's device is {world.device.type}; "
            "set it to max-autotune-no-cudagraphs or true."
        )
    if world.size > 1:
        raise ConfigError(
            f"memory.compiled is {kind}, which records CUDA graphs of weights that stay where they are, but "
            f"{world.size} processes were started and gather them for each use; start one, or set it to "
            "max-autotune-no-cudagraphs or true."
        )


def compile_blocks(
    network: nn.Module, block_classes: Collection[str], kind: Compilation = True, *, backend: str | None = None
) -> None:
    """Let a network's blocks be compiled when they are first called, with any number of samples.

    Which role's factors act is a condition for using a compilation and no part of it. So a block with factors is
    compiled once for each role, and a switch between roles compiles nothing.

    Kernels that are tried are tried for one shape: a mode that does so compiles a block again for every number of
    samples and length of text.

    Where CUDA graphs are recorded, there is one for every block, role, number of samples and length of text. What a
    block answers lasts until the network is called again without a gradient; what the network itself answers is no
    block's answer and lasts.

    Args:
        network: Not called yet.
        block_classes: The adapter's.
        kind: Not False.
        backend: What compiles in place of inductor, by torch's name; inductor needs a C++ compiler, or Triton on a GPU.
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, _COMPILATIONS)
    chosen: dict[str, Any] = {"backend": backend or "inductor"}
    if isinstance(kind, str):
        # one function for all networks: torch compares backends before it shares what they compiled
        chosen = {"backend": backend or _inductor, "mode": kind}
    for block in [module for module in network.modules() if type(module).__name__ in block_classes]:
        block.compile(dynamic=not _tried(kind), **chosen)
    if records_graphs(kind):
        network.register_forward_pre_hook(_begin)


def _inductor(graph: fx.GraphModule, inputs: list[Any], *, mode: str) -> Callable[..., Any]:
    if torch.is_grad_enabled():  # a guard of what dynamo hands over: it comes again with the other value
        mode = _WITHOUT_GRAPHS.get(mode, mode)
    from torch import _inductor as inductor

    return inductor.compile(graph, inputs, options=inductor.list_mode_options(mode))  # type: ignore[no-any-return]


def _begin(network: nn.Module, inputs: Any) -> None:
    # once per call of the network: a mark before each block would free the answer of the block before it
    if not torch.is_grad_enabled():
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
