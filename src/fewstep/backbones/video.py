"""What backbones of videos have in common: how many latents their frames are."""

from fewstep.errors import ConfigError


def latent_frames(frames: int, *, together: int, model: str, unit: int | None = None) -> int:
    """Latents of so many frames: the first is one of its own, and ``together`` more make the next.

    Args:
        unit: Frames behind the first come in multiples of it; None is ``together``.
        model: For the message.

    Raises:
        ConfigError: The VAE does not give so many frames back.
    """
    multiple = together if unit is None else unit
    if frames % multiple != 1 % multiple:
        raise ConfigError(
            f"{frames} frames do not fit {model}: they are one and a multiple of {multiple}; the nearest below are "
            f"{max(frames - 1, 0) // multiple * multiple + 1} (backbone.frames)."
        )
    return (frames - 1) // together + 1
