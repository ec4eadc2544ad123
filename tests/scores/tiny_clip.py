"""CLIPs with a few thousand weights: transformers' class in a folder, and open_clip's network under its own names."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from fewstep.embedded.assets import assets_folder

# a CLIP tokenizer of 117 words that ships with the package
TOKENIZER = assets_folder("digits") / "teacher" / "tokenizer" / "tokenizer.json"
WORDS, START, END = 117, 115, 116
SIZE, PATCH, LENGTH = 16, 4, 12


def clip_config() -> CLIPConfig:
    tower: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "projection_dim": 24,
    }
    return CLIPConfig(
        text_config={
            **tower,
            "vocab_size": WORDS,
            "max_position_embeddings": LENGTH,
            "bos_token_id": START,
            "eos_token_id": END,
            "pad_token_id": END,
        },
        vision_config={**tower, "image_size": SIZE, "patch_size": PATCH},
        projection_dim=24,
    )


def random_clip(seed: int = 0) -> CLIPModel:
    """A CLIP whose weights are large enough for different pictures to get different scores."""
    torch.manual_seed(seed)
    model = CLIPModel(clip_config()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
        model.logit_scale.fill_(4.6)
    return model


def write_clip(folder: Path, seed: int = 0, *, safe: bool = True) -> CLIPModel:
    """Write weights, configuration and tokenizer as a repository has them."""
    model = random_clip(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    shutil.copyfile(TOKENIZER, folder / "tokenizer.json")
    return model


class OpenClip(nn.Module):
    """open_clip's ViT as a network of its own: its names, and arithmetic that owes nothing to transformers."""

    def __init__(self, seed: int = 0, *, width: int = 160, text_width: int = 128, joint: int = 24) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.visual = _Vision(width, joint)
        self.transformer = _Blocks(text_width, text_width // 64)
        self.token_embedding = nn.Embedding(WORDS, text_width)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, text_width) * 0.1)
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.randn(text_width, joint) * 0.3)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("attn_mask", torch.full((LENGTH, LENGTH), float("-inf")).triu(1))
        self.eval()

    def cosine(self, pixels: Tensor, ids: list[int]) -> float:
        """Of one picture ``(3, h, w)`` and one prompt whose end token is the last."""
        seen = self.visual(pixels[None])
        text = self.token_embedding(torch.tensor([ids])) + self.positional_embedding[: len(ids)]
        text = self.ln_final(self.transformer(text, self.attn_mask[: len(ids), : len(ids)]))
        read = text[:, -1] @ self.text_projection
        return float(nn.functional.cosine_similarity(seen, read))


class _Vision(nn.Module):
    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // PATCH) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Blocks(width, width // 80)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, joint) * 0.3)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x), None)[:, 0]) @ self.proj


class _Blocks(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 2 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * width, width))
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))
