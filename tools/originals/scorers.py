"""Metrics of single pictures: the CLIP scorers against open_clip and hpsv2, ImageReward against image-reward."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.scores.checkpoints.open_clip_names import config_of, to_transformers
from fewstep.scores.metric import Picture, PromptItem
from fewstep.scores.registry import create_metrics
from tools.originals.environment import original, told
from tools.originals.finding import Finding, worst

_PROMPTS = ("a red fox, asleep under an old tree", "two dogs & a CAT in the rain", "x" * 200, "日本 café 3.5%")


def findings(folder: Path) -> Iterator[Finding]:
    """Run every original of this file.

    Args:
        folder: For pictures and weights.
    """
    pictures = prompted_pictures(folder / "prompted")
    tokenizer = _clip_words(folder / "words")
    network = _clip("open_clip", folder)
    transform = original("open_clip.transform").image_transform(224, is_train=False)
    cosines = _cosines(network, transform, original("open_clip.tokenizer").tokenize, pictures)
    scale = float(network.logit_scale.exp())
    chosen = {"source": str(_as_transformers(network, folder / "hf")), "tokenizer": str(tokenizer)}
    what = "a tiny CLIP, four pictures and prompts (where a crop cannot be centred, theirs is one pixel beside)"
    name = told("open_clip_torch")
    yield worst("clipscore", name, what, scores_of("clipscore", pictures, chosen), cosines)
    yield worst(
        "pickscore", name, what, scores_of("pickscore", pictures, chosen), [scale * cosine for cosine in cosines]
    )
    yield _hpsv2(pictures, tokenizer, folder)
    yield _image_reward(pictures, folder)


def prompted_pictures(folder: Path, *, further: Sequence[tuple[int, int]] = ()) -> list[Picture]:
    """Soft random pictures of prompts: one of each, and further ones of the first prompts in these sizes."""
    folder.mkdir()
    pictures = []
    sizes = ((300, 260), (224, 224), (180, 500), (640, 333), *further)
    for number, (prompt, size) in enumerate(zip((*_PROMPTS, *_PROMPTS), sizes, strict=False)):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        pictures.append(Picture(path, PromptItem(str(number), prompt), seed=0))
    return pictures


def scores_of(metric: str, pictures: Sequence[Picture], settings: dict[str, Any]) -> list[float]:
    """What our metric says of each picture."""
    (chosen,) = create_metrics([metric], {metric: settings})
    chosen.check([])
    chosen.load(torch.device("cpu"))
    return [finding.score for finding in chosen.examine(pictures)]


def _clip_words(folder: Path) -> Path:
    """CLIP's tokenizer as transformers has it, from the words that open_clip ships."""
    from transformers import CLIPTokenizer

    words = original("open_clip.tokenizer").SimpleTokenizer()
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(word, word): number
        for word, number in words.encoder.items()
    }
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.get)
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return folder


def _clip(package: str, folder: Path) -> Any:
    """A small CLIP of an original with random weights, whose vectors differ from picture to picture."""
    torch.manual_seed(0)
    model = original(f"{package}.model")
    vision = model.CLIPVisionCfg(layers=2, width=160, head_width=80, patch_size=14, image_size=224)
    text = model.CLIPTextCfg(context_length=77, vocab_size=49408, width=128, heads=2, layers=2)
    network = model.CLIP(64, vision, text, output_dict=True).eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
    return network


def _as_transformers(network: nn.Module, folder: Path) -> Path:
    tensors = to_transformers({name: value.detach().clone() for name, value in network.state_dict().items()})
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_of(tensors)))
    return folder


@torch.no_grad()
def _cosines(
    network: Any, transform: Any, tokenize: Callable[[list[str]], Tensor], pictures: Sequence[Picture]
) -> list[float]:
    found = []
    for picture in pictures:
        seen = network(transform(Image.open(picture.path))[None], tokenize([picture.item.text]))
        found.append(float((seen["image_features"] @ seen["text_features"].T)[0, 0]))
    return found


def _hpsv2(pictures: Sequence[Picture], tokenizer: Path, folder: Path) -> Finding:
    network = _clip("hpsv2.src.open_clip", folder)
    place = folder / "hps"
    place.mkdir()
    torch.save({"state_dict": network.state_dict()}, place / "HPS_v2.1_compressed.pt")
    transform = original("hpsv2.src.open_clip.transform").image_transform(224, is_train=False, resize_longest_max=True)
    cosines = _cosines(network, transform, original("hpsv2.src.open_clip.tokenizer").tokenize, pictures)
    ours = scores_of("hpsv2", pictures, {"source": str(place), "allow_pickle": True, "tokenizer": str(tokenizer)})
    return worst("hpsv2", told("hpsv2"), "a tiny CLIP, four pictures and prompts", ours, cosines)


def _image_reward(pictures: Sequence[Picture], folder: Path) -> Finding:
    """ImageReward with two layers in each tower; everything else is the original's own code."""
    _older_transformers()
    place = folder / "reward"
    place.mkdir()
    tokenizer = _bert_words(folder / "bert")
    blip = original("ImageReward.models.BLIP.blip_pretrain")
    bert = original("ImageReward.models.BLIP.med").BertModel
    # what transformers 4 gave every network: nothing tied, no head left out, a mask as numbers to add
    bert.all_tied_weights_keys = {}
    bert.get_head_mask = lambda self, mask, layers: [None] * layers
    bert.invert_attention_mask = lambda self, mask: (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
    vit = original("ImageReward.models.BLIP.vit").VisionTransformer
    vars(blip)["init_tokenizer"] = lambda: tokenizer
    vars(blip)["create_vit"] = lambda *_: (vit(img_size=224, patch_size=16, embed_dim=128, depth=2, num_heads=2), 128)
    config = {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 256,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "add_cross_attention": True,
    }
    (place / "med.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    network = original("ImageReward.ImageReward").ImageReward(str(place / "med.json")).eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.1)
        theirs = [network.score(picture.item.text, str(picture.path)) for picture in pictures]
    torch.save(network.state_dict(), place / "ImageReward.pt")
    chosen = {"source": str(place / "ImageReward.pt"), "allow_pickle": True, "tokenizer": str(folder / "bert")}
    what = "two layers per tower, four pictures and prompts"
    return worst("imagereward", told("image-reward"), what, scores_of("imagereward", pictures, chosen), theirs)


def _bert_words(folder: Path) -> Any:
    """A BERT tokenizer of letters, and the two words that ImageReward adds."""
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return tokenizer


def _older_transformers() -> None:
    """Names that image-reward imports from transformers 4, of code that is not run."""
    utils = original("transformers.modeling_utils")
    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer"):
        if not hasattr(utils, name):
            setattr(utils, name, _straight if name == "apply_chunking_to_forward" else None)


def _straight(forward: Callable[..., Any], chunk_size: int, chunk_dim: int, *inputs: Tensor) -> Any:
    return forward(*inputs)
