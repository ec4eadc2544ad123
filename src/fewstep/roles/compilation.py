"""torch.compile of a network's blocks (``memory.compiled``).

Block by block: one compilation serves all blocks of a shape, and graphs end where groups of weights are gathered.
"""

from collections.abc import Collection

import torch
from torch import nn

# torch keeps 8 compilations of a function and then runs the rest uncompiled. A block of Stable Diffusion 3 has two
# shapes, each with and without a gradient, for every role and for a batch of one: more than that
_COMPILATIONS = 64


def compile_blocks(network: nn.Module, block_classes: Collection[str], *, backend: str = "inductor") -> None:
    """Let a network's blocks be compiled when they are first called, with any number of samples.

    Which role's factors act is a condition for using a compilation and no part of it. So a block with factors is
    compiled once for each role, and a switch between roles compiles nothing.

    Args:
        network: Not called yet.
        block_classes: The adapter's.
        backend: What compiles, by torch's name; ``inductor`` needs a C++ compiler, or Triton on a GPU.
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, _COMPILATIONS)
    for block in [module for module in network.modules() if type(module).__name__ in block_classes]:
        block.compile(backend=backend, dynamic=True)
