"""The parts of the demo's teacher: a genuine Stable Diffusion 3 pipeline, only small.

It has the two CLIP text encoders of SD3 and no T5. The stock pipeline then appends ``max_sequence_length`` zero tokens
in T5's place, and its default of 256 would drown the 6 real ones. So the teacher is trained with exactly
:data:`MAX_SEQUENCE_LENGTH` of them, and every call has to ask for as many. One and not none, because a value that is
falsy is easily lost between two programs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from fewstep.embedded.digits.classifier import IMAGE_SIZE
from fewstep.embedded.digits.prompts import COLOURS, DIGIT_WORDS

MAX_SEQUENCE_LENGTH = 1
NUM_CLIP_TOKENS = 6
TEXT_WIDTH = 64
LATENT_CHANNELS = 4
LATENT_SIZE = 8
TEACHER_STEPS = 50
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
FACTS_FILE = "fewstep.json"


def vocabulary() -> list[str]:
    """List the words of the prompts; the order is that of the tokenizer's merges.

    A word becomes one token only if no merge of an earlier word takes its letters apart: ``red`` starts with the pair
    that ``green`` and ``three`` hold in their middle, so it comes last.
    """
    colours = sorted(COLOURS, key=lambda colour: colour == "red")
    return ["a", "handwritten", "digit", *DIGIT_WORDS, *colours]


def build_tokenizer() -> CLIPTokenizer:
    """Build a CLIP tokenizer that gives one token per word of the vocabulary."""
    words = vocabulary()
    letters = sorted({letter for word in words for letter in word})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        joined = parts[0]
        for part in parts[1:]:
            merges.append((joined, part))
            joined += part
            tokens.append(joined)
    tokens = [*dict.fromkeys(tokens), BOS, EOS]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=NUM_CLIP_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build one tiny CLIP text encoder with fresh weights."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=NUM_CLIP_TOKENS,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def build_transformer() -> SD3Transformer2DModel:
    """Build the transformer; modulations and the last layer start at zero, so each block starts as the identity."""
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=96,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIZE // 2,
        qk_norm="rms_norm",
    )
    zeroed = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


@dataclass(frozen=True)
class PromptEmbeds:
    """Token embeddings ``(b, 7, 128)`` and pooled embeddings ``(b, 128)`` of some prompts."""

    tokens: Tensor
    pooled: Tensor

    def take(self, index: Tensor) -> PromptEmbeds:
        """Select prompts by position."""
        return PromptEmbeds(self.tokens[index], self.pooled[index])


class TeacherNetworks(nn.Module):
    """The networks that are trained together: the transformer and its two text encoders."""

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        text_encoder: CLIPTextModelWithProjection,
        text_encoder_2: CLIPTextModelWithProjection,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.text_encoder_2 = text_encoder_2

    def encode(self, ids: Tensor) -> PromptEmbeds:
        """Embed token ids as the stock pipeline does: penultimate CLIP states, then the zero tokens of T5."""
        outputs = [encoder(ids, output_hidden_states=True) for encoder in (self.text_encoder, self.text_encoder_2)]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return PromptEmbeds(functional.pad(tokens, (0, 0, 0, MAX_SEQUENCE_LENGTH)), pooled)

    def velocity(self, x_sigma: Tensor, sigma: Tensor, cond: PromptEmbeds) -> Tensor:
        """Predict ``noise - x0``; this network's clock is ``1000 * sigma``."""
        output: Tensor = self.transformer(
            hidden_states=x_sigma,
            timestep=1000 * sigma,
            encoder_hidden_states=cond.tokens,
            pooled_projections=cond.pooled,
            return_dict=False,
        )[0]
        return output


def build_networks(tokenizer: CLIPTokenizer) -> TeacherNetworks:
    """Build the trained networks with fresh weights, from torch's global generator."""
    return TeacherNetworks(build_transformer(), build_text_encoder(tokenizer), build_text_encoder(tokenizer))


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Turn prompts into token ids, padded to the model's length as the stock pipeline does."""
    batch = tokenizer(
        list(prompts), padding="max_length", max_length=NUM_CLIP_TOKENS, truncation=True, return_tensors="pt"
    )
    ids: Tensor = batch.input_ids
    return ids


def assemble_pipeline(
    vae: AutoencoderKL, networks: TeacherNetworks, tokenizer: CLIPTokenizer
) -> StableDiffusion3Pipeline:
    """Put the trained parts into a stock pipeline without T5."""
    return StableDiffusion3Pipeline(
        vae=vae.eval(),
        transformer=networks.transformer.eval(),
        text_encoder=networks.text_encoder.eval(),
        text_encoder_2=networks.text_encoder_2.eval(),
        text_encoder_3=None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def save_teacher(
    pipeline: StableDiffusion3Pipeline, folder: Path, *, guidance_scale: float, image_size: int = IMAGE_SIZE
) -> None:
    """Save the pipeline in fp16 with the facts that a caller has to know (:data:`FACTS_FILE`)."""
    # fp16 moves a pixel by about 1e-4; bf16 ten times as much
    for network in (pipeline.vae, pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
        network.half()
    pipeline.save_pretrained(folder)
    for config in folder.glob("*/config.json"):
        _forget_origin(config)
    facts: dict[str, Any] = {
        "backbone": "sd3",
        "role": "teacher",
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "height": image_size,
        "width": image_size,
        "steps": TEACHER_STEPS,
        "guidance_scale": guidance_scale,
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _forget_origin(config: Path) -> None:
    """Drop where a component was loaded from: a path of the machine that trained it."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_teacher(folder: Path, *, dtype: torch.dtype = torch.float32) -> StableDiffusion3Pipeline:
    """Load a pipeline that was saved without T5; diffusers needs to be told that it is absent."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=dtype, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
