"""The life of a network that looks at pictures: its checkpoint is checked, it is loaded on a device, it is dropped."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from fewstep.scores.checkpoints.reading import StoredNetwork, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE

CONFIG_FILE = "config.json"


class Network(ABC):
    """A trained network and where its weights are; holds none until :meth:`load`.

    Args:
        checkpoint: Where the weights are; None for what ships inside the package.
    """

    weights: ClassVar[tuple[str, ...]] = ()
    """Names that its weights file may have beside the usual ones."""
    files: ClassVar[tuple[str, ...]] = (CONFIG_FILE,)
    """What it needs beside the weights."""

    def __init__(self, checkpoint: Source | None) -> None:
        self._checkpoint = checkpoint
        self._network: nn.Module | None = None
        self.device = torch.device("cpu")

    @property
    def checkpoint(self) -> Source:
        """Where the weights are."""
        assert self._checkpoint is not None, f"{type(self).__name__} ships inside the package"
        return self._checkpoint

    @property
    def network(self) -> Any:
        """The network; only between :meth:`load` and :meth:`unload`."""
        assert self._network is not None, "load() comes before the first picture"
        return self._network

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._network is not None

    def check(self) -> None:
        """Find out, without loading weights, whether the checkpoint is there.

        Raises:
            ConfigError: It is not; the message has the command that fixes it.
        """
        check_source(self.checkpoint, weights=self.weights, others=self.files)

    def read(self) -> StoredNetwork:
        """The checkpoint as the network's own names and configuration: what a conversion writes."""
        tokenizer = fetch_file(self.checkpoint, TOKENIZER_FILE) if TOKENIZER_FILE in self.files else None
        return StoredNetwork(self.config(), read_tensors(self.checkpoint, weights=self.weights), tokenizer)

    def config(self) -> dict[str, Any]:
        """The content of the checkpoint's ``config.json``."""
        return read_json(fetch_file(self.checkpoint, CONFIG_FILE))

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with its weights, in eval mode on the CPU.

        Raises:
            CheckpointError: The checkpoint is damaged, or that of another network.
        """

    def load(self, device: torch.device) -> None:
        """Bring the network to ``device``."""
        self.device = device
        self._network = self.build().to(device)

    def unload(self) -> None:
        """Drop the network."""
        self._network = None

    @contextmanager
    def in_memory(self) -> Iterator[None]:
        """Loaded inside the block, and dropped after it unless it was loaded before."""
        was_loaded = self.is_loaded
        try:
            if not was_loaded:
                self.load(self.device)
            yield
        finally:
            if not was_loaded:
                self.unload()
