"""A CLIP of both towers with its tokenizer: pictures and prompts as vectors of length 1."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_tensors
from fewstep.scores.checkpoints.source import Source, beside, fetch_file
from fewstep.scores.networks.network import Network
from fewstep.scores.networks.preprocessing import Pixels, normalised
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE, PromptRows


class Clip(Network):
    """A checkpoint in transformers' format.

    Args:
        checkpoint: Where the weights are.
        tokenizer: Where the ``tokenizer.json`` is unless it is beside the weights.
    """

    prompts: PromptRows

    def __init__(self, checkpoint: Source, tokenizer: Source | None = None) -> None:
        super().__init__(checkpoint)
        self._otherwise = tokenizer or checkpoint

    @property
    def tokenizer(self) -> Source:
        """Where the ``tokenizer.json`` is."""
        return beside(self.checkpoint, [TOKENIZER_FILE], self._otherwise)

    def check(self) -> None:
        together = self.tokenizer == self.checkpoint
        check_source(self.checkpoint, weights=self.weights, others=[*self.files, *[TOKENIZER_FILE] * together])
        if not together:
            check_source(self.tokenizer, weights=None, others=[TOKENIZER_FILE])

    def read(self) -> StoredNetwork:
        tensors = read_tensors(self.checkpoint, weights=self.weights)
        return StoredNetwork(self.config(), tensors, fetch_file(self.tokenizer, TOKENIZER_FILE))

    def build(self) -> nn.Module:
        from transformers import CLIPConfig, CLIPModel

        config = CLIPConfig.from_dict(self.config())
        self.read_words(config.text_config.max_position_embeddings)
        return build_network(self.checkpoint, CLIPModel, config)

    def read_words(self, length: int) -> None:
        """Read the tokenizer, whose rows are ``length`` tokens long."""
        self.prompts = PromptRows(fetch_file(self.tokenizer, TOKENIZER_FILE), length, fill_with_end=True)

    @property
    def image_size(self) -> int:
        """Pixels of a side that the network sees."""
        return int(self.network.config.vision_config.image_size)

    def of_pictures(self, squares: Sequence[Pixels]) -> Float[Tensor, "b d"]:
        """Vectors of pictures, given in [0, 1] before CLIP's mean and deviation."""
        pixels = torch.stack([normalised(square) for square in squares]).to(self.device)
        return normalize(self.network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Vectors of texts, cut at the network's length."""
        ids, mask = (rows.to(self.device) for rows in self.prompts.rows(texts))
        return normalize(self.network.get_text_features(ids, attention_mask=mask).pooler_output, dim=-1)
