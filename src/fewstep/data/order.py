"""The order in which prompts are used: a pure function of the seed and the position, so a resume needs no state."""

import hashlib
from functools import lru_cache

import numpy as np


def prompt_index(seed: int, position: int, num_prompts: int) -> int:
    """The prompt at a position of the endless sequence of samples.

    Every stretch of ``num_prompts`` positions is a permutation of its own, so each prompt comes once per epoch.

    Args:
        seed: Of the run.
        position: ``step * batch + j`` with j the sample's position in the global batch.
        num_prompts: Length of an epoch.
    """
    epoch, place = divmod(position, num_prompts)
    return int(_permutation(seed, epoch, num_prompts)[place])


# a batch touches two epochs, or as many as it holds when prompts are few
@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, num_prompts: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    name = f"{seed}/prompts/{epoch}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_prompts)
