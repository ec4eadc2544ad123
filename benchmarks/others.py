"""What a student update costs by the published settings of other methods, beside ours: counted, not measured.

One sample through the network forward is 1, backward 2, recomputation by gradient checkpointing 1, as in
:mod:`fewstep.planning.cost`. A backward that goes through a network without weights to train is 1. Every count was read
from the file named beside it, at that commit; the network is each method's own, so units of two rows are not seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.pages import table
from fewstep.config import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.planning.cost import units_by_part

PARTS = ("simulation", "fake_score", "student", "frozen", "adversarial")
OURS = ("sd3-medium", "cheap-cdm", "d-dmd", "dmd2", "dp-dmd")
SDXL_ENCODER = 0.434
"""Share of SDXL's forward in its down and middle blocks, whose features DMD2's discriminator sees."""


@dataclass(frozen=True)
class Other:
    """One method by its own settings; counts are of samples in all iterations that make one student update.

    Attributes:
        network: Of the settings that were read.
        fake_updates: Updates of the fake score.
        simulated: Forwards of the student without gradient.
        student_graphs: Forwards of the student with gradient.
        fake_graphs: Forwards of the fake score with gradient in one of its updates; two where it is guided.
        asked: Forwards of teacher and fake score at the student's answers.
        through: Of these, those whose gradient goes on to the student's answer.
        through_recomputed: Of those, the ones of a network with checkpointing.
        adversarial: Units of a discriminator that is the same network.
        checkpointing: Whether it is on there.
        batch: Samples of an update over all processes; None where it is not stated.
        updates: Student updates of the run; None where they are not stated.
        source: Repository or paper, and its files, each with its commit.
    """

    name: str
    network: str
    fake_updates: int
    simulated: float
    student_graphs: int
    asked: int
    checkpointing: bool
    batch: int | None
    updates: int | None
    source: str
    fake_graphs: int = 1
    through: int = 0
    through_recomputed: int = 0
    adversarial: float = 0.0

    def parts(self, *, checkpointing: bool) -> dict[str, float]:
        """Units by what they are for, checkpointing as there or not."""
        recompute = 1.0 if checkpointing else 0.0
        return {
            "simulation": self.simulated,
            "fake_score": self.fake_updates * self.fake_graphs * (3.0 + recompute),
            "student": self.student_graphs * (3.0 + recompute),
            "frozen": self.asked + self.through + recompute * self.through_recomputed,
            "adversarial": self.adversarial,
        }

    def units(self, *, checkpointing: bool) -> float:
        """Per sample and student update."""
        return sum(self.parts(checkpointing=checkpointing).values())


def _to_a_random_step(steps: int) -> float:
    """Forwards before a step that is drawn evenly."""
    return fmean(range(steps))


OTHERS = (
    Other(
        name="DMD2",
        network="SDXL",
        fake_updates=5,
        # each of five iterations simulates anew; in four of them the last forward is without gradient as well
        simulated=5 * _to_a_random_step(4) + 4,
        student_graphs=1,
        asked=3,
        # for the student forward and backward to the picture; for the discriminator real and drawn, five times
        adversarial=SDXL_ENCODER * (2 + 5 * 2 * 3),
        checkpointing=False,
        batch=64 * 2,
        updates=19_000 // 5,
        source="tianweiy/DMD2: experiments/sdxl/sdxl_cond999_8node_lr5e-7_denoising4step_diffusion1000_gan5e-3_"
        "guidance8_noinit_noode_backsim_scratch.sh (4e54501), experiments/sdxl/README.md (3564032), "
        "main/train_sd.py (3f3a60e), main/sd_unified_model.py (1388331), main/sd_guidance.py (4e54501)",
    ),
    Other(
        name="CDM, its authors' code",
        network="SD3-Medium",
        fake_updates=2,
        simulated=2 * fmean(range(1, 29)),
        student_graphs=3,
        asked=6,
        checkpointing=True,
        batch=128,
        updates=2000,
        source="byliutao/cdm (May 2026), settings `sd3()`; calls counted while it ran",
    ),
    Other(
        name="D-DMD, as that code runs it",
        network="SD3-Medium",
        fake_updates=2,
        simulated=2 * 4,
        student_graphs=2,
        asked=4,
        checkpointing=True,
        batch=128,
        updates=2000,
        source="byliutao/cdm (May 2026) with its fixed schedule and without `cdm`; of the paper (arXiv 2511.22677) "
        "neither training code nor batch and ratio of updates were found",
    ),
    Other(
        name="CDM of LightX2V",
        network="Qwen-Image, LoRA",
        fake_updates=2,
        # 2 to 16 steps, stopped at one that is drawn evenly: the student's own run without its last forward
        simulated=2 * fmean((n + 1) / 2 for n in range(2, 17)) + fmean((n - 1) / 2 for n in range(2, 17)),
        student_graphs=2,
        asked=3 + 2,
        checkpointing=True,
        batch=None,
        updates=1000,
        source="ModelTC/LightX2V: lightx2v_train/configs/train/dmd/qwen_image_cdm_lora.yaml (7b3385a), "
        "lightx2v_train/lightx2v_train/trainers/dmd/trainer.py (7b3385a), .../tricks/cdm.py (38553da)",
    ),
    Other(
        name="TDM",
        network="PixArt-alpha, 512 px",
        fake_updates=1,
        # all four steps, and the drawn one once more for the fake score
        simulated=4 + 1,
        student_graphs=1,
        # guided teacher and fake score, and a teacher's answer in the fake score's update that nothing uses
        asked=3 + 1,
        checkpointing=True,
        batch=None,
        updates=None,
        source="Luo-Yihong/TDM: README.md (81b019f), train_tdm_demo.py (2f938bf)",
    ),
    Other(
        name="SiD-DiT",
        network="SD3-Medium",
        fake_updates=1,
        fake_graphs=2,
        # one to four steps: all of them for the fake score, all but the last for the student
        simulated=fmean(range(1, 5)) + _to_a_random_step(4),
        student_graphs=1,
        asked=4,
        through=4,
        through_recomputed=2,
        checkpointing=True,
        batch=256,
        updates=1_000_000 // 256,
        source="apple-aiml-research/ml-sid-dit (9596ed9): run_sid_dit.sh, whose settings serve all models by its "
        "README.md, training/sid_dit_sd3_training_loop.py, training/sid_dit_sd3_util.py",
    ),
    Other(
        name="SenseFlow",
        network="SD3.5-Medium",
        fake_updates=10,
        # half of ten iterations simulate, nine end with a forward without gradient, and one more is on the detour
        simulated=10 * 0.5 * _to_a_random_step(4) + 9 + 1,
        student_graphs=1,
        # guided teacher at the probe and on the detour, fake score at the probe
        asked=2 + 2 + 1,
        checkpointing=True,
        batch=None,
        updates=None,
        source="XingtongGe/SenseFlow (f7da31b): senseflow/trainer/trainer_sd35_senseflow.py",
    ),
)


def units_table() -> str:
    """The others, then our recipes."""
    head = (
        "method",
        "network",
        "fake score : student",
        "simulation",
        "fake score",
        "student",
        "teacher and fake score asked",
    )
    rows = [(*head, "GAN", "**sum**", "with its checkpointing", "batch", "million forwards in a run")]
    for one in OTHERS:
        whole = one.units(checkpointing=one.checkpointing)
        row = [one.name, one.network, f"{one.fake_updates} : 1", *_told(one.parts(checkpointing=False)), f"{whole:.1f}"]
        rows.append((*row, *_run(one.batch, one.updates, whole)))
    for recipe in OURS:
        config = load_recipe(recipe).config
        whole = sum(units_by_part(config).values())
        row = [f"ours: `{recipe}`", "SD3-Medium", f"{config.student.every} : 1", *_told(_plain(config)), f"{whole:.1f}"]
        rows.append((*row, *_run(config.batch, config.budget.student_updates, whole)))
    return table(rows)


def sources_table() -> str:
    """Where the others' counts come from."""
    return table([("method", "read from"), *((one.name, one.source) for one in OTHERS)])


def _plain(config: RunConfig) -> dict[str, float]:
    memory = config.memory.model_copy(update={"gradient_checkpointing": False})
    return units_by_part(config.model_copy(update={"memory": memory}))


def _told(parts: Mapping[str, float]) -> Sequence[str]:
    told = [f"{parts[name]:.1f}" if parts.get(name) else "" for name in PARTS]
    return [*told, f"**{sum(parts.values()):.1f}**"]


def _run(batch: int | None, updates: int | None, units: float) -> Sequence[str]:
    forwards = "" if batch is None or updates is None else f"{batch * updates * units / 1e6:.1f}"
    return ["not stated" if batch is None else str(batch), forwards or "not stated"]
