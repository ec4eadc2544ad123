"""Make the embedded teacher, classifier, reference and measured rows from scikit-learn's digits.

The work is cut into stages. Each leaves its result in the output folder and is skipped when that is there, so an
interrupted rebuild goes on where it stopped; the longest stage also saves its state every thousand steps.

    OUTPUT/work/     what only the rebuild needs: fp32 autoencoder, fp32 networks, the state of an unfinished training
    OUTPUT/assets/   what ships: copy it over the package's ``embedded/assets/digits``
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from fewstep.embedded import assets
from fewstep.embedded.digits.classifier import read_classifier
from fewstep.embedded.digits.prompts import NUM_COLOURS, NUM_DIGITS
from fewstep.embedded.digits.task import Digits
from fewstep.errors import ConfigError
from fewstep.files import whole_file
from tools.embedded_teacher.classifier import save_classifier, train_classifier
from tools.embedded_teacher.flow_training import FlowSettings, LatentPool, train_flow
from tools.embedded_teacher.pictures import (
    HELD_OUT_FILE,
    BaseDigits,
    DigitImages,
    draw_pool,
    draw_prompted,
    load_base_digits,
    split_base_digits,
)
from tools.embedded_teacher.rows import measure_rows, write_rows
from tools.embedded_teacher.teacher import (
    TeacherNetworks,
    assemble_pipeline,
    build_networks,
    build_tokenizer,
    save_teacher,
)
from tools.embedded_teacher.vae import encode_means, psnr, store_latent_statistics, train_vae

Progress = Callable[[str], None]
IMAGES_PER_FULL_PROMPT = 20


@dataclass(frozen=True)
class VaeSettings:
    """How the autoencoder is trained."""

    num_steps: int = 1_600
    batch: int = 64
    lr: float = 3e-3


@dataclass(frozen=True)
class ClassifierSettings:
    """How the classifier is trained."""

    num_steps: int = 1_500
    batch: int = 128
    lr: float = 3e-3


@dataclass(frozen=True)
class RebuildSettings:
    """Everything that decides what a rebuild makes."""

    seed: int = 0
    held_out: float = 0.3
    pool_per_digit: int = 48
    guidance_scale: float = 1.5
    vae: VaeSettings = field(default_factory=VaeSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)


@dataclass(frozen=True)
class Workshop:
    """The folders, the settings and the data that the stages share.

    No base digit has two uses: ``train`` makes the pictures that teacher and classifier learn from, ``reference`` those
    that everything is compared with, ``real`` those of the row of real data. With digits in common, real data would
    seem closer to the reference than any model that never saw them can be.
    """

    work: Path
    result: Path
    settings: RebuildSettings
    train: BaseDigits
    reference: BaseDigits
    real: BaseDigits
    progress: Progress

    def pool(self) -> DigitImages:
        """Render the training pictures; the same ones whenever it is called."""
        return draw_pool(self.train, num_per_digit=self.settings.pool_per_digit, seed=self.settings.seed + 1)

    def reporter(self, stage: str, num_steps: int) -> Callable[[int, dict[str, float]], None]:
        """Make a callback that prints step, values and the time left of one training."""
        started = time.monotonic()
        first: list[int] = []

        def report(step: int, values: dict[str, float]) -> None:
            # the first report of a continued training counts only the steps since then
            first.append(step)
            done = max(1, step - (first[0] if len(first) > 1 else 0))
            left = (time.monotonic() - started) / done * (num_steps - step)
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.progress(f"{stage} {step}/{num_steps}  {numbers}  about {left / 60:.1f} min left")

        return report


def rebuild(
    output: Path,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = print,
    settings: RebuildSettings | None = None,
) -> Path:
    """Train the embedded teacher and classifier and measure them, into ``output``.

    Args:
        output: A folder; an unfinished rebuild in it goes on.
        seed: Names the split of the digits and every random number.
        threads: Threads of the arithmetic. One is the safe choice on a busy machine.
        progress: Receives one line of text at a time.
        settings: Sizes and lengths of the stages; the shipped files use the defaults, with ``seed``.

    Returns:
        The finished ``assets`` folder.

    Raises:
        ConfigError: scikit-learn is missing, or ``output`` holds a rebuild with other settings.
    """
    torch.set_num_threads(threads)
    folder = build_assets(Path(output), settings or RebuildSettings(seed=seed), progress)
    if not (folder / assets.ROWS_FILE).exists():
        with assets.in_place_of_shipped(assets.DIGITS, folder):
            rows = measure_rows(notify=progress)
        write_rows(rows, folder / assets.ROWS_FILE)
    assets.write_manifest(folder)
    return folder


def build_assets(output: Path, settings: RebuildSettings, progress: Progress) -> Path:
    """Run every stage whose result is missing and return the ``assets`` folder, without the measured rows."""
    shop = open_workshop(output, settings, progress)
    for name, stage in STAGES.items():
        if stage.result(shop).exists():
            progress(f"{name}: already there")
            continue
        started = time.monotonic()
        stage.run(shop)
        progress(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")
    assets.write_manifest(shop.result)
    return shop.result


def open_workshop(output: Path, settings: RebuildSettings, progress: Progress) -> Workshop:
    """Create or reopen the output folder; one that was begun with other settings is refused."""
    work, result = output / "work", output / "assets"
    chosen = json.dumps(asdict(settings), indent=2)
    record = work / "settings.json"
    if record.exists() and record.read_text(encoding="utf-8") != chosen:
        raise ConfigError(
            f"{output} holds a rebuild with other settings (see {record}). Choose another output folder, or remove it."
        )
    train, held_out = split_base_digits(load_base_digits(), held_out=settings.held_out, seed=settings.seed)
    reference, real = split_base_digits(held_out, held_out=0.5, seed=settings.seed + 1)
    work.mkdir(parents=True, exist_ok=True)
    result.mkdir(exist_ok=True)
    record.write_text(chosen, encoding="utf-8")
    return Workshop(work, result, settings, train, reference, real, progress)


@dataclass(frozen=True)
class Stage:
    """One piece of the work: where its result is, and how it is made."""

    result: Callable[[Workshop], Path]
    run: Callable[[Workshop], None]


def keep_held_out(shop: Workshop) -> None:
    """Store the base digits of the row of real data as the whole numbers 0 to 16 that scikit-learn has."""
    images = (shop.real.images * 16).round().to(torch.uint8)
    save_file({"images": images, "digits": shop.real.digits}, shop.result / HELD_OUT_FILE)


def make_vae(shop: Workshop) -> None:
    """Train the autoencoder and measure its latents."""
    settings, pool = shop.settings.vae, shop.pool()
    vae = train_vae(
        pool.pixels,
        pool.digits,
        num_steps=settings.num_steps,
        batch=settings.batch,
        lr=settings.lr,
        seed=shop.settings.seed + 2,
        report=shop.reporter("autoencoder", settings.num_steps),
    )
    store_latent_statistics(vae, encode_means(vae, pool.pixels))
    unseen = draw_pool(shop.real, num_per_digit=1, seed=shop.settings.seed + 5).pixels
    shop.progress(
        f"autoencoder: {psnr(vae, unseen):.1f} dB on held-out digits, scaling {vae.config.scaling_factor:.3f}, "
        f"shift {vae.config.shift_factor:.3f}"
    )
    partial = shop.work / "vae.partial"
    vae.save_pretrained(partial)
    partial.rename(shop.work / "vae")


def read_vae(shop: Workshop) -> AutoencoderKL:
    """Load the trained autoencoder."""
    return AutoencoderKL.from_pretrained(shop.work / "vae", local_files_only=True).eval()


def make_networks(shop: Workshop) -> None:
    """Train transformer and text encoders on the latents of the pool."""
    pool, vae, settings = shop.pool(), read_vae(shop), shop.settings.flow
    x0 = (encode_means(vae, pool.pixels) - vae.config.shift_factor) * vae.config.scaling_factor
    state_file = shop.work / "flow.state"
    networks = train_flow(
        LatentPool(x0, pool.digits, pool.colours),
        settings,
        seed=shop.settings.seed + 4,
        state_file=state_file,
        report=shop.reporter("teacher", settings.num_steps),
    )
    with whole_file(shop.work / "networks.safetensors") as unfinished:
        save_file({name: value.contiguous() for name, value in networks.state_dict().items()}, unfinished)
    state_file.unlink(missing_ok=True)


def read_networks(shop: Workshop) -> TeacherNetworks:
    """Load the trained transformer and text encoders."""
    networks = build_networks(build_tokenizer())
    networks.load_state_dict(load_file(shop.work / "networks.safetensors"))
    return networks


def make_teacher(shop: Workshop) -> None:
    """Assemble the pipeline and save it in half precision."""
    pipeline = assemble_pipeline(read_vae(shop), read_networks(shop), build_tokenizer())
    partial = shop.work / "teacher.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_teacher(pipeline, partial, guidance_scale=shop.settings.guidance_scale)
    partial.rename(shop.result / assets.TEACHER_FOLDER)


def make_classifier(shop: Workshop) -> None:
    """Train the classifier on the pictures that the teacher learns from."""
    settings = shop.settings.classifier
    classifier = train_classifier(
        shop.pool(),
        num_steps=settings.num_steps,
        batch=settings.batch,
        lr=settings.lr,
        seed=shop.settings.seed + 3,
        report=shop.reporter("classifier", settings.num_steps),
    )
    unseen = draw_pool(shop.real, num_per_digit=10, seed=shop.settings.seed + 5)
    share = classifier.predict(unseen.pixels).matches(unseen.digits, unseen.colours).float().mean()
    shop.progress(f"classifier: {float(share):.4f} of held-out pictures right in digit and colour")
    with whole_file(shop.result / Digits.judge_file) as unfinished:
        save_classifier(classifier, unfinished)


def make_reference(shop: Workshop) -> None:
    """Render 20 pictures per full prompt from the reference's digits and keep their features."""
    classifier = read_classifier(shop.result / Digits.judge_file)
    full = [(digit, colour) for digit in range(NUM_DIGITS) for colour in range(NUM_COLOURS)]
    drawn = draw_prompted(shop.reference, full * IMAGES_PER_FULL_PROMPT, seed=shop.settings.seed + 6)
    with whole_file(shop.result / assets.REFERENCE_FILE) as unfinished:
        save_file({"features": classifier.predict(drawn.pixels).features.contiguous()}, unfinished)


STAGES = {
    "held-out digits": Stage(lambda shop: shop.result / HELD_OUT_FILE, keep_held_out),
    "classifier": Stage(lambda shop: shop.result / Digits.judge_file, make_classifier),
    "reference": Stage(lambda shop: shop.result / assets.REFERENCE_FILE, make_reference),
    "autoencoder": Stage(lambda shop: shop.work / "vae", make_vae),
    "teacher": Stage(lambda shop: shop.work / "networks.safetensors", make_networks),
    "pipeline": Stage(lambda shop: shop.result / assets.TEACHER_FOLDER, make_teacher),
}
