"""Files that a recipe names beside the folder of a checkpoint, and which are part of the teacher."""

from pathlib import Path

from fewstep.backbones.lora_file import find_lora
from fewstep.backbones.protocol import BackboneConfig


def teacher_files(config: BackboneConfig) -> dict[str, Path]:
    """The one file of weights and the LoRAs, by the settings that name them.

    Raises:
        ConfigError: A LoRA is not there.
    """
    files = {f"backbone.lora[{number}]": find_lora(source) for number, source in enumerate(config.lora)}
    return files if config.components is None else {"backbone.model": Path(config.model), **files}
