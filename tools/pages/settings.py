"""What a recipe and its adapter decide, side by side for one family, as the table of its page."""

from collections.abc import Mapping, Sequence

from fewstep.backbones.describe import lora_targets, schedule
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.planning.cost import EIGHT_H100, hours
from fewstep.planning.porting_matrix import PORTED


def settings_table(adapters: Mapping[str, ModelAdapter]) -> str:
    """Markdown with one column per recipe; values that all recipes share stand once.

    Args:
        adapters: By the recipe's name, made from the configuration of the recipe's checkpoint.
    """
    columns = [_settings(name, adapter) for name, adapter in adapters.items()]
    lines = [f"| recipe | {' | '.join(f'`{name}`' for name in adapters)} |", f"|---|{'---|' * len(columns)}"]
    for row in columns[0]:
        cells = [column[row] for column in columns]
        same = len(columns) > 1 and len(set(cells)) == 1
        lines.append(f"| {row} | {' | '.join([cells[0], *['the same'] * (len(cells) - 1)] if same else cells)} |")
    return "\n".join(lines) + "\n"


def _settings(name: str, adapter: ModelAdapter) -> dict[str, str]:
    config = load_recipe(name).config
    backbone, sampling = config.backbone, config.sampling
    frames = getattr(backbone, "frames", None)  # of families that make videos
    return {
        "checkpoint": f"`{backbone.model}`",
        "size": f"{backbone.height} x {backbone.width} px" + (f", {frames} frames" if frames else ""),
        "batch, student updates": f"{config.batch}, {config.budget.student_updates}",
        "learning rates of student and fake score": f"{config.student.lr:g}, {config.fake_score.lr:g}",
        "precision": config.precision.compute,
        "terms": _terms(config),
        "alignment": _alignment(config),
        "teacher for comparison": f"{sampling.teacher_steps} steps, guidance {sampling.teacher_guidance_scale:g}",
        "schedule, by the teacher's own shift": schedule(adapter, sampling.levels),
        "LoRA targets": _code(lora_targets(adapter)),
        "blocks, sharded and checkpointed": _code(adapter.block_classes),
        f"expected cost on {EIGHT_H100.name}, computed": f"{_hours(name, config):.1f} h",
    }


def _terms(config: RunConfig) -> str:
    terms = config.terms
    named = [f"`ca` at scale {terms.ca.scale:g}"] if terms.ca is not None else []
    named += [f"`{name}`" for name in terms.active() if name != "ca"]
    if terms.isg is not None:
        low, high = terms.isg.guidance.low, terms.isg.guidance.high
        guidance = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        named.append(f"`isg` (weight {terms.isg.weight:g}, margin {terms.isg.margin:g}, guidance {guidance})")
    return ", ".join(named)


def _alignment(config: RunConfig) -> str:
    align = config.fake_score.align
    return "none" if align is None else f"decay {align.decay:g} after every update of the {align.after}"


def _hours(name: str, config: RunConfig) -> float:
    teraflop = next(target.teraflop for target in PORTED if target.name == name)
    assert teraflop is not None
    return hours(config, teraflop_per_forward=teraflop)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
