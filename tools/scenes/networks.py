"""The networks of the teacher of ``scenes``: a genuine, small Stable Diffusion 3 without T5.

As the teacher of the digits it has one zero token in the place of T5, which every call has to ask for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from diffusers import SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from fewstep.embedded.scenes.detector import GRID
from fewstep.embedded.scenes.grammar import MAX_WORDS, vocabulary
from tools.embedded_teacher.teacher import BOS, EOS, TeacherNetworks
from tools.scenes.autoencoder import CHANNELS

NUM_TOKENS = MAX_WORDS + 2
LATENT_SIZE = GRID
PATCH = 2
WIDTH, HEADS, LAYERS = 128, 4, 7
TEXT_WIDTH = 64


def build_tokenizer() -> CLIPTokenizer:
    """Build a CLIP tokenizer that gives one token per word.

    A word becomes one token only if no earlier word's merges take its letters apart; which order of the words does that
    is found by moving those that fail.
    """
    words, rng = [*vocabulary(), ","], random.Random(0)
    for _ in range(2_000):
        tokenizer = _tokenizer(words)
        broken = [word for word in words if len(tokenizer(word).input_ids) != 3]
        if not broken:
            return tokenizer
        for word in rng.sample(broken, max(1, len(broken) // 2)):
            words.remove(word)
            words.insert(rng.randrange(max(1, len(words) // rng.randint(1, 5))), word)
    raise RuntimeError(f"no order of the words makes each of them one token; {broken} fail in the last one tried")


def _tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    letters = sorted({letter for word in words for letter in word})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        first, *others = [*word[:-1], f"{word[-1]}</w>"]
        for part in others:
            merges.append((first, part))
            first += part
            tokens.append(first)
    vocab = {token: number for number, token in enumerate([*dict.fromkeys(tokens), BOS, EOS])}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=NUM_TOKENS)


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Turn prompts into token ids ``(n, 20)``, padded as the stock pipeline does."""
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", max_length=NUM_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build one tiny CLIP text encoder with fresh weights."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=NUM_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_transformer() -> SD3Transformer2DModel:
    """Build the transformer; modulations and the last layer start at zero, so each block starts as the identity."""
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=LAYERS,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIZE // PATCH,
        qk_norm="rms_norm",
    )
    zeroed = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def build_networks(tokenizer: CLIPTokenizer) -> TeacherNetworks:
    """Build the networks that are trained together with fresh weights, from torch's global generator."""
    return TeacherNetworks(build_transformer(), build_text_encoder(tokenizer), build_text_encoder(tokenizer))
