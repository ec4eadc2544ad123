"""A metric that is the cosine of a picture's and a prompt's CLIP vectors, times or plus whatever the metric says."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewstep.bounds import Place
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.metric import MetricSettings, Picture, PromptItem
from fewstep.scores.metrics.learned_scorer import CONFIG_FILE, LearnedScorer
from fewstep.scores.networks.preprocessing import Pixels, normalised
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE, PromptRows


class TokenizerSettings(MetricSettings):
    """A scorer whose tokenizer may be in another repository; one beside the weights goes first."""

    tokenizer: Place = Field(description="hub id or local folder that has the tokenizer.json")


class ClipMetric(LearnedScorer):
    """Scores from one CLIP; a subclass says how pictures are prepared and what becomes of the cosine."""

    settings_class: ClassVar[type[TokenizerSettings]]
    settings: TokenizerSettings
    own_weights: ClassVar[tuple[str, ...]] = ()
    config_files: ClassVar[tuple[str, ...]] = (CONFIG_FILE,)
    _prompts: PromptRows | None = None

    @abstractmethod
    def prepared(self, image: Image.Image, size: int) -> Pixels:
        """A picture as a square of ``size`` in [0, 1], before CLIP's mean and deviation."""

    def value(self, cosine: Float[Tensor, "b"], network: Any) -> Float[Tensor, "b"]:
        """The score of a cosine; the cosine itself unless a metric says otherwise."""
        return cosine

    def check(self, items: Sequence[PromptItem]) -> None:
        weights, words = self.checkpoint, self._tokenizer_source
        together = [TOKENIZER_FILE] if words == weights else []
        check_source(weights, weights=self.own_weights, others=[*self.config_files, *together])
        if not together:
            check_source(words, weights=None, others=[TOKENIZER_FILE])

    def read(self) -> StoredNetwork:
        config = read_json(fetch_file(self.checkpoint, CONFIG_FILE))
        tensors = read_tensors(self.checkpoint, weights=self.own_weights)
        return StoredNetwork(config, without_positions(tensors), fetch_file(self._tokenizer_source, TOKENIZER_FILE))

    def build(self, stored: StoredNetwork) -> nn.Module:
        from transformers import CLIPConfig, CLIPModel

        assert stored.tokenizer is not None
        config = CLIPConfig.from_dict(dict(stored.config))
        length = config.text_config.max_position_embeddings
        self._prompts = PromptRows(stored.tokenizer, length, fill_with_end=True)
        return build_network(self.checkpoint, CLIPModel, config, stored.tensors)

    def unload(self) -> None:
        super().unload()
        self._prompts = None

    def run(self, network: Any, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> Float[Tensor, "b"]:
        assert self._prompts is not None
        size = int(network.config.vision_config.image_size)
        pixels = torch.stack([normalised(self.prepared(image, size)) for image in images]).to(network.device)
        ids, mask = (rows.to(network.device) for rows in self._prompts.rows([one.item.text for one in pictures]))
        seen = normalize(network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        read = normalize(network.get_text_features(ids, attention_mask=mask).pooler_output, dim=-1)
        return self.value((seen * read).sum(-1), network)

    @property
    def _tokenizer_source(self) -> Source:
        return self.beside([TOKENIZER_FILE], self.settings.tokenizer, setting="tokenizer")


def without_positions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counting tensors (0, 1, 2, ...) that older files store."""
    return {name: value for name, value in tensors.items() if not name.endswith("position_ids")}
