"""HPS v3: human preference by a fine-tuned Qwen2-VL-7B that rates a picture at one special token."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from fewstep.bounds import Place
from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.reading import StoredNetwork, build_network, check_source, read_json, read_tensors
from fewstep.scores.checkpoints.source import Source, beside, fetch_file
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem, as_findings
from fewstep.scores.metrics.hpsv3_prompt import IMAGE_TOKEN, REWARD_TOKEN, question
from fewstep.scores.networks.linear_head import linear_stack
from fewstep.scores.networks.network import CONFIG_FILE, Network
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE, PromptRows

# every picture is scaled to this many pixels, in multiples of two patches: 448 x 448 for a square
_NUM_PIXELS = 256 * 28 * 28
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class _Hpsv3Settings(MetricSettings):
    """The weights hold everything but the configuration and the tokenizer, which are the base model's."""

    base: Place = Field(default="Qwen/Qwen2-VL-7B-Instruct", description="hub id or folder of config and tokenizer")
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="of the body; the head is float32")


class Hpsv3(Metric):
    """The mean rating of each pair of picture and prompt."""

    settings_class: ClassVar[type[_Hpsv3Settings]] = _Hpsv3Settings
    settings: _Hpsv3Settings
    card = MetricCard(
        name="hpsv3",
        title="HPS v3: human preference, Qwen2-VL-7B",
        formula="first output (the mean; the second is the uncertainty) of the head at the token <|Reward|>",
        scale="about -5 to 15",
        higher_is_better=True,
        preprocessing="scaled to about 448 x 448 pixels, sides in multiples of 28, Pillow's bicubic filter; the prompt "
        "stands in the fixed instruction that the model was trained with",
        licence="MIT (weights), Apache-2.0 (Qwen2-VL-7B-Instruct)",
        comparable="Comparable with HPS v3 in papers: tokens are counted one after another, as in the published code; "
        "code that lets current transformers lay out the picture in two dimensions gives other numbers. Needs about "
        "17 GB of memory.",
        source="MizzenAI/HPSv3",
    )

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        base = Source(self.card.name, self.settings.base, setting="base")
        self.rater = _Rater(self.checkpoint, base, _DTYPES[self.settings.dtype])
        self.networks = (self.rater,)

    def check_prompt(self, item: PromptItem) -> None:
        for token in (REWARD_TOKEN, IMAGE_TOKEN):
            if token in item.text:
                raise ConfigError(
                    f"The prompt {item.id} contains {token}, which {self.card.name} reads as a command. "
                    "Remove it from the prompt, or leave the metric out."
                )

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        network, prompts, device = self.rater.network, self.rater.prompts, self.rater.device
        patches, grid = self._patches(network, pictures, images)
        counts = (grid.prod(dim=1) // network.patches_per_token).tolist()
        texts = [question(picture.item.text, count) for picture, count in zip(pictures, counts, strict=True)]
        ids, mask = prompts.rows(texts)
        reward = prompts.id_of(REWARD_TOKEN)
        ratings = network(ids.to(device), mask.to(device), patches.to(device), grid.to(device), reward=reward)
        return as_findings(ratings[:, 0])

    def _patches(
        self, network: Any, pictures: Sequence[Picture], images: Sequence[Image.Image]
    ) -> tuple[Tensor, Tensor]:
        """The patches of all pictures one below the other, and each picture's grid ``(1, rows, columns)``."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        prepare = Qwen2VLImageProcessorPil(
            size={"shortest_edge": _NUM_PIXELS, "longest_edge": _NUM_PIXELS}, **network.patch_layout
        )
        parts: list[Any] = []
        for picture, image in zip(pictures, images, strict=True):
            try:
                parts.append(prepare(image, return_tensors="pt"))
            except ValueError as error:
                raise self.cannot_score(picture, str(error)) from error
        return torch.cat([part["pixel_values"] for part in parts]), torch.cat([p["image_grid_thw"] for p in parts])


class _Rater(Network):
    """The published weights; configuration and tokenizer are those of the base model."""

    weights = ("HPSv3.safetensors",)
    prompts: PromptRows

    def __init__(self, checkpoint: Source, base: Source, dtype: torch.dtype) -> None:
        super().__init__(checkpoint)
        self._otherwise = base
        self._dtype = dtype

    @property
    def _base(self) -> Source:
        return beside(self.checkpoint, [CONFIG_FILE, TOKENIZER_FILE], self._otherwise)

    def check(self) -> None:
        check_source(self.checkpoint, weights=self.weights)
        check_source(self._base, weights=None, others=[CONFIG_FILE, TOKENIZER_FILE])

    def read(self) -> StoredNetwork:
        tensors = to_transformers(read_tensors(self.checkpoint, weights=self.weights))
        config = _with_vocabulary(self.checkpoint, read_json(fetch_file(self._base, CONFIG_FILE)), tensors)
        return StoredNetwork(config, tensors, fetch_file(self._base, TOKENIZER_FILE))

    def build(self) -> nn.Module:
        stored = self.read()
        self.prompts = _prompts(stored, self.checkpoint)
        return _RatingNetwork(self.checkpoint, stored.config, stored.tensors, self._dtype)


class _RatingNetwork(nn.Module):
    """Qwen2-VL without its language head, and the three linear layers that rate."""

    def __init__(
        self, source: Source, config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype
    ) -> None:
        from transformers import Qwen2VLConfig, Qwen2VLModel

        super().__init__()
        body = {name: value for name, value in tensors.items() if not name.startswith("rm_head.")}
        parsed = Qwen2VLConfig.from_dict(dict(config))
        self.image_token = int(parsed.image_token_id)
        vision = parsed.vision_config
        self.patch_layout = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        self.patches_per_token = int(vision.spatial_merge_size) ** 2
        self.body: Any = build_network(source, Qwen2VLModel, parsed, body, dtype=dtype)
        self.head = linear_stack(source, tensors, prefix="rm_head", num_layers=3, relu=True)

    def forward(self, ids: Tensor, mask: Tensor, patches: Tensor, grid: Tensor, *, reward: int) -> Float[Tensor, "b 2"]:
        """Mean and uncertainty of each picture's rating."""
        text = self.body.language_model
        embedded = text.embed_tokens(ids)
        seen = torch.cat(self.body.get_image_features(patches, grid).pooler_output).to(embedded)
        embedded = embedded.masked_scatter((ids == self.image_token)[..., None], seen)
        # one after another on all three axes, as the published code does; the body's own forward would count the
        # picture's rows and columns
        places = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        hidden = text(inputs_embeds=embedded, attention_mask=mask, position_ids=places).last_hidden_state
        rated: Tensor = self.head(hidden[ids == reward].float())
        return rated


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of transformers 4.45, where the language model was ``model``, as of today."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("model."):
            renamed[f"language_model.{name.removeprefix('model.')}"] = tensor
        elif name != "lm_head.weight":  # predicts words, which no rating needs
            renamed[name] = tensor
    return renamed


def _with_vocabulary(source: Source, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The base's configuration with as many words as the checkpoint has: training added ``<|Reward|>``."""
    from transformers import Qwen2VLConfig

    words = tensors.get("language_model.embed_tokens.weight")
    if words is None:
        raise CheckpointError(
            f"{source.name} holds no HPS v3: it has no model.embed_tokens.weight. Give MizzenAI/HPSv3, or the file "
            "HPSv3.safetensors of it."
        )
    parsed = Qwen2VLConfig.from_dict(dict(config))
    parsed.text_config.vocab_size = len(words)
    whole: dict[str, Any] = parsed.to_dict()
    return whole


def _prompts(stored: StoredNetwork, source: Source) -> PromptRows:
    """The base's tokenizer with ``<|Reward|>`` behind its words.

    Raises:
        CheckpointError: The checkpoint has no row for that token, so it was trained with another tokenizer.
    """
    assert stored.tokenizer is not None
    prompts = PromptRows(stored.tokenizer, added=[REWARD_TOKEN])
    rows = len(stored.tensors["language_model.embed_tokens.weight"])
    if prompts.num_words != rows:
        raise CheckpointError(
            f"{source.name} has {rows} words and its tokenizer {prompts.num_words} with {REWARD_TOKEN}: they do not "
            "belong together. Set hpsv3.base to the Qwen2-VL-7B-Instruct that the checkpoint was trained from."
        )
    return prompts
