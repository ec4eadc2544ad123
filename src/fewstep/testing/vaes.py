"""Tiny real autoencoders with random weights, in eval mode."""

from typing import Any

LATENT_CHANNELS = 4
# not 0 and 1, so that an adapter that leaves them out draws something else
_STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.2, 0.8, 1.0, 0.9]}


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


def flux2_vae() -> Any:
    """An ``AutoencoderKLFlux2`` of factor 2, whose batch normalisation has seen no latents yet."""
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=LATENT_CHANNELS,
    ).eval()


def qwen_image_vae() -> Any:
    """An ``AutoencoderKLQwenImage`` of factor 4, for pictures as films of one frame."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        **_STATISTICS,
    ).eval()


def qwen_image21_vae() -> Any:
    """An ``AutoencoderKLQwenImage21`` of factor 16, whose pictures have an alpha channel."""
    from diffusers import AutoencoderKLQwenImage21

    return AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        **_STATISTICS,
    ).eval()


def wan_vae(*, residual: bool = False) -> Any:
    """An ``AutoencoderKLWan`` of factor 8 in space and 4 in time.

    Args:
        residual: As Wan 2.2 TI2V-5B has it, of factor 16 in space.
    """
    from diffusers import AutoencoderKLWan

    newer = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **(newer if residual else {}),
        **_STATISTICS,
    ).eval()
