"""Prompt sets that a student may be trained on, by name; none is inside this package.

A set is here when its page on the hub states a licence that allows training, and prompts are files of their own there,
not texts between pictures. Counts and licences are what the pages say. Prompts of benchmarks are not here: a student
that was trained on them cannot be measured with them.
"""

from dataclasses import dataclass

from fewstep.prompts.hub_files import HubFiles


@dataclass(frozen=True)
class _TrainingSet:
    """Where a set is, and what its page says of it.

    Attributes:
        what: One line for people.
        count: How many prompts, before repetitions are left out unless it says distinct.
        licence: As the page states it.
        megabytes: To be fetched.
        column: The one of the prompts.
        hub: The files, of one commit.
    """

    what: str
    count: str
    licence: str
    megabytes: int
    column: str
    hub: HubFiles


TRAINING_SETS: dict[str, _TrainingSet] = {
    "diffusiondb": _TrainingSet(
        "written by users of Stable Diffusion; some are not safe for work",
        "1.5 million distinct",
        "CC0 1.0",
        190,
        "prompt",
        HubFiles("poloclub/diffusiondb", ("metadata.parquet",), "1622615f9b0b2a964ec82da0a63b4b20982243ea"),
    ),
    "midjourney": _TrainingSet(
        "written by users of Midjourney in a month of 2022; some have its --parameters",
        "221,743",
        "Apache-2.0",
        9,
        "text",
        HubFiles(
            "succinctly/midjourney-prompts",
            ("data/train-00000-of-00001.parquet",),
            "9e7f88d5df8f2e80adde7baaf20058905f52f474",
        ),
    ),
    "pickapic-sfw": _TrainingSet(
        "written by users of Pick-a-Pic, sanitised; many stand there several times",
        "335,000",
        "MIT",
        89,
        "caption",
        HubFiles(
            "CarperAI/pickapic_v1_no_images_training_sfw",
            ("pickapic_training_sfw.parquet",),
            "ebca1a045fbb7d4192df1d4804865f9c4c91f27b",
        ),
    ),
    "pd12m": _TrainingSet(
        "machine-made captions of pictures in the public domain, the first of 13 files",
        "about 1 million",
        "CDLA-Permissive-2.0",
        187,
        "caption",
        HubFiles("Spawning/PD12M", ("metadata/pd12m.00.parquet",), "6e76394456be39726889a297d282bd929819d34b"),
    ),
    "pixmo-cap": _TrainingSet(
        "spoken descriptions of pictures as captions of some 200 words; for research and education, says its page",
        "717,042",
        "ODC-BY 1.0",
        1102,
        "caption",
        HubFiles(
            "allenai/pixmo-cap",
            tuple(f"data/train-0000{number}-of-00004.parquet" for number in range(4)),
            "28c9d380a093b58357dde4f5d1314a7f30af9c9d",
        ),
    ),
}
