"""Tiny real diffusers pipelines, built offline in milliseconds: random weights, tokenizers made on the fly."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers

from fewstep.backbones.configurations import complete_components

WIDTH = 32
LATENT_CHANNELS = 4


def clip_tokenizer(length: int = 40) -> Any:
    """A byte-level CLIP tokenizer without merges."""
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    vocab.update({f"{symbol}</w>": 256 + index for index, symbol in enumerate(alphabet)})
    vocab.update({"<|startoftext|>": 512, "<|endoftext|>": 513})
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def clip_encoder(width: int = 16, positions: int = 40) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        max_position_embeddings=positions,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return CLIPTextModelWithProjection(config)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    letters = [(chr(code), -3.0) for code in range(33, 127) if chr(code) not in "<>"]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters], extra_ids=0)


def t5_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def kl_vae(channels: int = LATENT_CHANNELS) -> Any:
    """A KL autoencoder of factor 2."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def sd3_pipeline(*, sd35: bool = True, t5: bool = True, scheduler: dict[str, Any] | None = None) -> Any:
    """A StableDiffusion3Pipeline of 32 channels: SD3.5-Medium's structure, or plain SD3's."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        structure = {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"} if sd35 else {"dual_attention_layers": ()}
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=32,
            pos_embed_max_size=12,
            **structure,
        )
        return StableDiffusion3Pipeline(
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
            vae=kl_vae().eval(),
            text_encoder=clip_encoder().eval(),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip_encoder().eval(),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder().eval() if t5 else None,
            tokenizer_3=t5_tokenizer() if t5 else None,
        )


def whole(components: dict[str, dict[str, Any]], network_class: str, vae_class: str = "AutoencoderKL") -> Any:
    """Excerpts of a checkpoint's JSON files as opening the checkpoint gives them, with every default in place."""
    classes = {"transformer": network_class, "unet": network_class, "vae": vae_class}
    named = {
        name: {"_class_name": classes[name], **config} if name in classes else config
        for name, config in components.items()
    }
    return complete_components(named, place="an excerpt")


def save(pipeline: Any, folder: Path) -> Path:
    """Write a pipeline folder as diffusers does."""
    pipeline.save_pretrained(folder)
    return folder
