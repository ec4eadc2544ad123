"""Export the student of a run: from its checkpoint to files that are read again, compared, and only then kept."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.lora_source import LoraSource
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.registry import create_model_adapter
from fewstep.devices import fastest_device
from fewstep.errors import ConfigError
from fewstep.export.card import SHEET, card
from fewstep.export.comparison import Specimen
from fewstep.export.diffusers_folder import Exported, require_free, student_facts, write_pipeline
from fewstep.export.factors import (
    DIFFUSERS_FILE,
    comfyui_targets,
    factor_layers,
    folded,
    require_comfyui,
    require_loader,
    require_plain_teacher,
    write_for_comfyui,
    write_for_diffusers,
)
from fewstep.export.formats import PIPELINE, ComfyUI, FixedRank, Format, Lora, Pipeline, require_dtype, require_range
from fewstep.export.low_rank import Extraction, extract
from fewstep.export.stock_code import example_prompt, factors_code, pipeline_code
from fewstep.export.story import require_scores, tell
from fewstep.export.weights import (
    Kept,
    TrainedStudent,
    merge_factors,
    public_name,
    put_student,
    read_student,
    require_fit,
)
from fewstep.files import explain_write_errors, whole_folder, write_text
from fewstep.roles.weights import FullWeights, LoraWeights

_USUAL_CUT = FixedRank(64)


def export(
    run: str | Path,
    output: str | Path,
    *,
    step: int | str | None = None,
    weights: Kept | None = None,
    dtype: str = "fp32",
    format: Format = PIPELINE,
    scores: str | Path | None = None,
) -> Exported:
    """Write a run's student, whole or not at all.

    Args:
        run: A run's folder, or one of its checkpoint folders.
        output: The folder to write; refused when something is there.
        step: Which checkpoint of a run's folder: its number of steps, ``best`` or ``last``; None is the last.
        weights: The student's average (``ema``) or its weights themselves (``raw``); None is the average where the run
            kept one.
        dtype: ``fp32`` (the exact weights), ``bf16`` or ``fp16`` (half the size).
        format: A diffusers folder, or low-rank factors for the teacher.
        scores: The folder of an evaluation of this student, whose table the model card shows.

    Returns:
        The folder, the stock call that draws with it, and how that differs from the student of the run.

    Raises:
        ConfigError: There is no run or no such checkpoint, ``output`` cannot be used, or the student cannot be
            written in this format.
        CheckpointError: The checkpoint is damaged or does not fit the run's backbone, or what was written draws
            something else.
    """
    target = Path(output)
    require_free(target)
    require_dtype(dtype)
    if scores is not None:
        require_scores(Path(scores))
    student = read_student(run, step=step, weights=weights)
    adapter = create_model_adapter(student.config.backbone.model, student.config.backbone)
    trained, origin = student.config.student.weights, str(run)
    _require_possible(format, trained, adapter, origin=origin)
    levels, between = student.config.sampling.levels, student.config.simulation.step
    writing = _Writing(
        adapter, student_facts(adapter, levels, student.provenance, step=between), format, dtype, target.resolve().name
    )
    specimen = Specimen(adapter, writing.facts, example_prompt(adapter))
    network = adapter.load_network()
    contents = _contents(student, adapter, network, format, dtype, origin=origin)
    drawn = specimen.by(network)
    with explain_write_errors(target), whole_folder(target, doing="exporting") as unfinished:
        writing.write(unfinished, network, contents)
        del network  # before it is read again, so that one is in memory
        exact = dtype == "fp32" and contents.extraction is None
        difference = specimen.require_same(drawn, writing.read_again(unfinished), exact=exact, where=target)
        story = tell(student.folder, student.steps, scores=None if scores is None else Path(scores))
        if story.sheet is not None:
            shutil.copyfile(story.sheet[0], unfinished / SHEET)
        text = card(
            adapter,
            writing.name,
            writing.facts,
            code=writing.code(writing.name, public_name(adapter.config.model)),
            dtype=dtype,
            format=format,
            difference=str(difference),
            extraction=contents.extraction,
            story=story,
        )
        write_text(unfinished / "README.md", text)
    return Exported(target, writing.code(target.as_posix(), adapter.config.model), difference, contents.extraction)


def _require_possible(
    format: Format, trained: FullWeights | LoraWeights, adapter: ModelAdapter, *, origin: str
) -> None:
    """Raise ConfigError for a format that this run or this family has not, before anything is loaded."""
    if isinstance(format, Pipeline):
        return
    require_plain_teacher(adapter.config, run=origin)
    if format.cut is not None and isinstance(trained, LoraWeights):
        raise ConfigError(
            f"The run {origin} trained factors of rank {trained.rank}, which are exported as they are; leave --rank, "
            "--error and --size out."
        )
    if isinstance(format, ComfyUI):
        require_comfyui(adapter)


@dataclass(frozen=True)
class _Contents:
    """What is written besides the student's own network: factors, and what they leave out."""

    factors: dict[str, Tensor] = field(default_factory=dict)
    extraction: Extraction | None = None


def _contents(
    student: TrainedStudent, adapter: ModelAdapter, network: nn.Module, format: Format, dtype: str, *, origin: str
) -> _Contents:
    """Turn ``network``, the teacher, into the student, and find the factors that a format writes."""
    trained = student.config.student.weights
    if isinstance(format, Pipeline):
        put_student(network, student, origin=origin)
        require_range(network.named_parameters(), dtype)
        return _Contents()
    require_loader(network, adapter)
    if isinstance(trained, LoraWeights):
        factors = folded(student.weights.all(), trained.scaling)
        merge_factors(network, factors, scaling=1.0, origin=origin)
        return _Contents(factors)
    require_fit(network, student.weights.empty, origin=origin)
    targets = comfyui_targets(adapter) if isinstance(format, ComfyUI) else None
    found = extract(
        network,
        student.weights,
        factor_layers(network, targets),
        format.cut or _USUAL_CUT,
        dtype=dtype,
        device=fastest_device(),
    )
    return _Contents(found.factors, found)


@dataclass(frozen=True)
class _Writing:
    """How a format is written, read again and drawn with."""

    adapter: ModelAdapter
    facts: ModelFacts
    format: Format
    dtype: str
    name: str

    def write(self, folder: Path, network: nn.Module, contents: _Contents) -> None:
        match self.format:
            case Pipeline():
                write_pipeline(self.adapter, network, folder, self.facts, dtype=self.dtype)
            case Lora():
                write_for_diffusers(self.adapter, contents.factors, self.facts, folder / self._file, dtype=self.dtype)
            case ComfyUI():
                prompt = example_prompt(self.adapter)
                write_for_comfyui(
                    self.adapter, contents.factors, self.facts, folder / self._file, prompt=prompt, dtype=self.dtype
                )

    def read_again(self, folder: Path) -> nn.Module:
        """The student's network, from the files alone and, of factors, the teacher."""
        if isinstance(self.format, Pipeline):
            return create_model_adapter(folder, as_teacher=False).load_network()
        config = self.adapter.config
        lora = LoraSource(path=str(folder / self._file))
        return create_model_adapter(config.model, config.model_copy(update={"lora": (lora,)})).load_network()

    def code(self, folder: str, teacher: str) -> str:
        """Python code that draws with what was written, which stands in ``folder``, the teacher in ``teacher``."""
        if isinstance(self.format, Pipeline):
            return pipeline_code(self.adapter, folder, self.facts, dtype=self.dtype)
        file = self._file
        return factors_code(self.adapter, folder, self.facts, teacher=teacher, dtype=self.dtype, file=file)

    @property
    def _file(self) -> str:
        """Of the factors. ComfyUI lists files by name, so there it is the student's."""
        return f"{self.name}.safetensors" if isinstance(self.format, ComfyUI) else DIFFUSERS_FILE
