"""Tiny real autoencoders with random weights, in eval mode: two pixels make a latent where released ones take more."""

from typing import Any

LATENT_CHANNELS = 4


def kl_vae(
    channels: int = LATENT_CHANNELS,
    *,
    scaling_factor: float = 1.5305,
    shift_factor: float | None = 0.0609,
    quant_conv: bool = False,
) -> Any:
    """An ``AutoencoderKL`` of factor 2.

    Args:
        scaling_factor, shift_factor: SD3's, unless another model's are given.
        quant_conv: Whether it has the quantisation layers of Stable Diffusion 1 and 2, SDXL and AuraFlow.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=quant_conv,
        use_post_quant_conv=quant_conv,
    ).eval()


def dc_vae() -> Any:
    """An ``AutoencoderDC`` of factor 2, as SANA has it."""
    from diffusers import AutoencoderDC

    blocks = ("ResBlock", "EfficientViTBlock")
    return AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()
