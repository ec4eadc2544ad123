"""Export the student of a run."""

from pathlib import Path

from fewstep.backbones.registry import create_model_adapter
from fewstep.errors import ConfigError
from fewstep.export.diffusers_folder import Exported, export_student, require_free, student_facts
from fewstep.export.factors import export_factors, require_loader
from fewstep.export.formats import require_dtype
from fewstep.export.weights import Kept, merge_factors, put_weights, read_student
from fewstep.roles.weights import LoraWeights


def export(
    run: str | Path,
    output: str | Path,
    *,
    step: int | str | None = None,
    weights: Kept | None = None,
    dtype: str = "fp32",
    factors_only: bool = False,
) -> Exported:
    """Write a run's student as a diffusers folder that stock diffusers loads.

    Args:
        run: A run's folder, or one of its checkpoint folders.
        output: Where the pipeline goes; refused when something is there.
        step: Which checkpoint of a run's folder: its number of steps, ``best`` or ``last``; None is the last.
        weights: The student's average (``ema``) or its weights themselves (``raw``); None is the average where the run
            kept one.
        dtype: ``fp32`` (the exact weights), ``bf16`` or ``fp16`` (half the size).
        factors_only: Write the low-rank factors of a run that trained some, to be put on the teacher by diffusers,
            instead of the student merged with it.

    Returns:
        The folder, and the exact stock call that draws with it.

    Raises:
        ConfigError: There is no run or no such checkpoint, or ``output`` cannot be used.
        CheckpointError: The checkpoint is damaged or does not fit the run's backbone.
    """
    require_free(Path(output))
    require_dtype(dtype)
    student = read_student(run, step=step, weights=weights)
    config = student.config
    adapter = create_model_adapter(config.backbone.model, config.backbone)
    network = adapter.load_network()
    trained = config.student.weights
    if factors_only:
        if not isinstance(trained, LoraWeights):
            raise ConfigError(f"The run {run} trained all weights, so it has no factors; export it without --factors.")
        if config.backbone.lora or config.backbone.components:
            reason = "has LoRAs merged into it (backbone.lora)" if config.backbone.lora else "is one file of weights"
            raise ConfigError(
                f"The teacher of {run} {reason}, which is not what diffusers would put the factors on; "
                "export the merged student, without --factors."
            )
        require_loader(network, config.backbone.model)
        facts = student_facts(adapter, config.sampling.levels, student.provenance, step=config.simulation.step)
        factors = student.weights.all()
        return export_factors(adapter, factors, output, scaling=trained.scaling, facts=facts, dtype=dtype)
    if isinstance(trained, LoraWeights):
        merge_factors(network, student.weights.all(), scaling=trained.scaling, origin=str(run))
    else:
        put_weights(network, student.weights.empty, student.weights.parts(), origin=str(run))
    return export_student(
        adapter,
        network,
        output,
        levels=config.sampling.levels,
        step=config.simulation.step,
        dtype=dtype,
        provenance=student.provenance,
    )
