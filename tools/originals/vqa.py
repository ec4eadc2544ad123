"""VQAScore against t2v_metrics: Qwen2.5-VL with its own processor, tokenizer and generation."""

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

from fewstep.scores.metric import Picture
from tools.originals.environment import original, told
from tools.originals.finding import Finding
from tools.originals.scorers import prompted_pictures, scores_of

_ADDED = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# both as the published Qwen2.5-VL has them, in generation_config.json and preprocessor_config.json
_PENALTY = 1.05
_SIZE = {"shortest_edge": 3136, "longest_edge": 12845056}


def findings(folder: Path) -> Iterator[Finding]:
    """Run the original of this file.

    Args:
        folder: For pictures and weights.
    """
    pictures = prompted_pictures(folder / "asked", further=((1024, 1024), (1664, 928)))
    place = _qwen(folder / "qwen")
    ours, theirs = scores_of("vqascore", pictures, {"source": str(place)}), _theirs(pictures, place)
    largest = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    what = "a tiny Qwen2.5-VL, six pictures of 180x500 to 1664x928"
    yield Finding("vqascore", told("t2v-metrics"), what, f"{largest:.1e} relative at most")


def _theirs(pictures: list[Picture], place: Path) -> list[float]:
    # its packages import every model's own libraries, and ask for ffmpeg
    root = Path(next(iter(getattr(find_spec("t2v_metrics"), "submodule_search_locations", None) or ())))
    for name in ("t2v_metrics", "t2v_metrics.models", "t2v_metrics.models.vqascore_models"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    decord = ModuleType("decord")  # reads videos
    vars(decord).update(VideoReader=None, cpu=None)
    sys.modules.setdefault("decord", decord)
    module = original("t2v_metrics.models.vqascore_models.qwen2vl_model")
    # the folder for the hub's repository, and what needs a GPU for what a CPU has
    chosen = {"path": str(place), "torch_dtype": torch.float32, "attn_implementation": "sdpa"}
    module.QWEN2_VL_MODELS["qwen2.5-vl-7b"] = {"tokenizer": {"path": str(place)}, "model": chosen}
    network = module.Qwen2VLModel("qwen2.5-vl-7b", device="cpu", checkpoint=str(place))
    scores = network.forward([str(picture.path) for picture in pictures], [picture.item.text for picture in pictures])
    return [float(score) for score in scores]


def _qwen(folder: Path) -> Path:
    """A small Qwen2.5-VL with random weights and the files of the published ones."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = _processor(folder)
    text = {
        "vocab_size": len(ids),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|im_end|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokens = {f"{name}_token_id": ids[word] for name, word in names.items()}
    torch.manual_seed(0)
    network = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    ).eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
    network.save_pretrained(folder)
    generation = {"repetition_penalty": _PENALTY, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|im_end|>"]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def _processor(folder: Path) -> dict[str, int]:
    """Qwen2.5-VL's processor with a tokenizer of bytes, ``Yes`` and ``yes``; returns the ids of its words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(one, other) for word in ("Yes", "yes") for one, other in ((word[0], "e"), (word[:2], "s"))]
    words = [*letters, *(one + other for one, other in merges)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in _ADDED])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|im_end|>", eos_token="<|im_end|>")
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=_SIZE),
        tokenizer=fast,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_CHAT,
    )
    processor.save_pretrained(folder)
    return dict(tokenizer.get_vocab())
