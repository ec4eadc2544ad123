"""ImageReward with a few thousand weights: its own names, and arithmetic that owes nothing to transformers."""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

SIZE, PATCH, VISION, TEXT = 32, 8, 128, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "green", "handwritten", "three", "seven"]


def write_tokenizer(folder: Path) -> Path:
    """A BERT tokenizer of eleven words."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention of one sample, ``(tokens, width)``, without a mask."""
    parts = []
    for one_q, one_k, one_v in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        parts.append(((one_q @ one_k.T) / math.sqrt(one_q.shape[-1])).softmax(-1) @ one_v)
    return torch.cat(parts, -1)


class OwnImageReward(nn.Module):
    """The reward before its normalisation, by the published names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blip = nn.Module()
        self.blip.visual_encoder = _Vision()
        self.blip.text_encoder = _Text()
        self.blip.vision_proj, self.blip.text_proj = nn.Linear(VISION, 8), nn.Linear(TEXT, 8)
        self.mlp = nn.Module()
        widths = (TEXT, 40, 24, 16, 8, 1)
        linear = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
        gaps = [nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.1)]
        self.mlp.layers = nn.Sequential(
            linear[0], gaps[0], linear[1], gaps[1], linear[2], gaps[2], linear[3], linear[4]
        )
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.5 if "cls" in name or "pos" in name or "embeddings" in name else 0.15)
        self.eval()

    def reward(self, pixels: Tensor, ids: list[int]) -> float:
        """Of one picture ``(3, h, w)`` and one prompt without filling."""
        seen = self.blip.visual_encoder(pixels)
        return float(self.mlp.layers(self.blip.text_encoder(torch.tensor(ids), seen)[0]))


class _Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, VISION))
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIZE // PATCH) ** 2 + 1, VISION))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, VISION, PATCH, PATCH)
        self.blocks = nn.ModuleList(_VisionBlock() for _ in range(2))
        self.norm = nn.LayerNorm(VISION, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed.proj(pixels[None])[0].flatten(1).T
        x = torch.cat([self.cls_token[0], patches]) + self.pos_embed[0]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _VisionBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(VISION, eps=1e-6), nn.LayerNorm(VISION, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(VISION, 3 * VISION), nn.Linear(VISION, VISION)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(VISION, 2 * VISION), nn.Linear(2 * VISION, VISION)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.attn.proj(attend(q, k, v, VISION // 64))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class _Text(nn.Module):
    """BERT that reads the picture; every word sees every word."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(len(WORDS) + 2, TEXT)
        self.embeddings.position_embeddings = nn.Embedding(40, TEXT)
        self.embeddings.LayerNorm = nn.LayerNorm(TEXT, eps=1e-12)
        self.embeddings.register_buffer("position_ids", torch.arange(40)[None])
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(_TextBlock() for _ in range(2))

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        places = self.embeddings.position_embeddings.weight[: len(ids)]
        x = self.embeddings.LayerNorm(self.embeddings.word_embeddings(ids) + places)
        for block in self.encoder.layer:
            x = block(x, seen)
        return x


class _TextBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.crossattention = _Attention(TEXT), _Attention(VISION)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense = nn.Linear(TEXT, 2 * TEXT)
        self.output.dense, self.output.LayerNorm = nn.Linear(2 * TEXT, TEXT), nn.LayerNorm(TEXT, eps=1e-12)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = self.crossattention(self.attention(x, x), seen)
        return self.output.LayerNorm(self.output.dense(nn.functional.gelu(self.intermediate.dense(x))) + x)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module("self", nn.Module())
        own = self.get_submodule("self")
        own.query, own.key, own.value = nn.Linear(TEXT, TEXT), nn.Linear(width, TEXT), nn.Linear(width, TEXT)
        self.output = nn.Module()
        self.output.dense, self.output.LayerNorm = nn.Linear(TEXT, TEXT), nn.LayerNorm(TEXT, eps=1e-12)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        own = self.get_submodule("self")
        mixed = attend(own.query(x), own.key(other), own.value(other), TEXT // 64)
        return self.output.LayerNorm(self.output.dense(mixed) + x)
