"""The README.md of what was written: what it is, how it draws, where it comes from."""

from collections.abc import Mapping
from typing import Any

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.stock import bare_call, student_call
from fewstep.export.formats import PIPELINE, ComfyUI, Format, Pipeline
from fewstep.export.low_rank import Extraction
from fewstep.export.story import Story
from fewstep.export.workflow import sampler_name

SHEET = "sheet.png"
"""What the sample sheet is called beside the README."""
_CITATION = """```bibtex
@misc{cdm2026,
  title = {Continuous-Time Distribution Matching},
  year = {2026},
  eprint = {2605.06376},
  archivePrefix = {arXiv}
}
```"""


def card(
    adapter: ModelAdapter,
    name: str,
    facts: ModelFacts,
    *,
    code: str,
    dtype: str,
    format: Format = PIPELINE,
    difference: str | None = None,
    extraction: Extraction | None = None,
    story: Story | None = None,
) -> str:
    """The text of README.md.

    Args:
        name: Of the folder.
        facts: What ``fewstep.json`` says of the student.
        code: That draws with it in plain diffusers, run beside the folder.
        difference: Between what the run's student draws and what was written draws.
        extraction: What low-rank factors leave out.
        story: What the run tells.
    """
    sections = [
        ("", "" if story is None or story.sheet is None else f"![teacher over student]({SHEET})\n\n{story.sheet[1]}"),
        ("Draw with plain diffusers", _with_diffusers(adapter, name, facts, code, format)),
        ("Draw with ComfyUI", _with_comfyui(adapter, name, facts, format)),
        ("Measured", "" if story is None else story.measured),
        ("What was compared", "" if difference is None else _compared(difference, dtype)),
        ("What the factors lack", "" if extraction is None else _lacking(extraction)),
        ("How it was trained", "" if story is None else f"{story.data}\n\n{_rows(story.settings)}"),
        ("Where it comes from", _rows({**facts.provenance, "weights": dtype})),
        ("Licence", "" if story is None else _licence(story, facts)),
        ("Citation", "" if story is None else _CITATION),
    ]
    parts = [f"## {title}\n\n{text}" if title else text for title, text in sections if text]
    head = [] if story is None else [_head(adapter, story, facts, format)]
    return "\n\n".join([*head, f"# {name}", _opening(facts, format), *parts]) + "\n"


def _head(adapter: ModelAdapter, story: Story, facts: ModelFacts, format: Format) -> str:
    """What the hub reads of a card."""
    teacher = str(facts.provenance.get("teacher", ""))
    fields = {
        "license": "other" if story.licence is None else story.licence.identifier,
        "license_name": None if story.licence is None else story.licence.name,
        "license_link": None if story.licence is None else story.licence.link,
        # a folder of this machine is no repository
        "base_model": teacher if "/" in teacher else None,
        "base_model_relation": "finetune" if isinstance(format, Pipeline) else "adapter",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image" if adapter.frame_rate is None else "text-to-video",
        "tags": f"[fewstep, few-step, distillation{'' if isinstance(format, Pipeline) else ', lora'}]",
    }
    return "\n".join(["---", *(f"{name}: {value}" for name, value in fields.items() if value), "---"])


def _opening(facts: ModelFacts, format: Format) -> str:
    steps, teacher = len(facts.sigmas or ()), facts.provenance.get("teacher")
    named = f"`{teacher}`" if teacher else "its teacher"
    tool = "[fewstep](https://pypi.org/project/fewstep)"
    if isinstance(format, Pipeline):
        whose = "The teacher's licence applies to these weights."
        return f"A {steps}-step student, distilled with {tool} from {named}. {whose}"
    return (
        f"Low-rank factors (a LoRA) that turn {named} into a {steps}-step student, distilled with {tool}. **Their "
        "strength is 1**: alpha is inside. The teacher's licence applies."
    )


def _with_diffusers(adapter: ModelAdapter, name: str, facts: ModelFacts, code: str, format: Format) -> str:
    steps, whole = len(facts.sigmas or ()), isinstance(format, Pipeline)
    call = student_call(adapter, facts.sigmas or (), whole=whole)
    if call.keys() & {"sigmas", "timesteps"}:
        grid = "scheduler takes the sigmas as they are, and a call without them draws poorer pictures."
    elif "num_inference_steps" in call:
        grid = (
            f"scheduler holds that grid, and a call with another number of steps than {steps} draws something poorer."
        )
    else:
        grid = "folder holds the grid, and a call that states steps or sigmas is not what it was trained for."
    file = "picture.png" if adapter.frame_rate is None else "video.gif"
    bare = ", ".join(f"{key}={value!r}" for key, value in bare_call(adapter, call).items())
    alone = (
        "**Do not leave `call` out.** A diffusers folder has no place for it, and `pipeline(prompt=...)` alone takes "
        f"{bare}, for which this student was not trained.\n\n"
        if bare
        else "`pipeline(prompt=...)` alone draws as this student was trained, at the size that its pipeline has by "
        "itself.\n\n"
    )
    ours = f'\n\nOr with fewstep: `fewstep sample {name} --prompt "..." --steps {steps} --output {file}`'
    return (
        f"{alone}"
        "Run this beside the folder. The grid of noise levels and the guidance scale belong to the student: its "
        f"{grid}\n\n```python\n{code}```{ours if whole else ''}"
    )


def _compared(difference: str, dtype: str) -> str:
    return (
        f"These files were read again before they were kept. From the same noise, with weights in {dtype} against the "
        f"run's float32, {difference}."
    )


def _lacking(extraction: Extraction) -> str:
    rows = "".join(
        f"| `{layer.name}` | {layer.rank} | {layer.change:.4g} | {layer.error:.2%} |\n" for layer in extraction.layers
    )
    return (
        f"{extraction} Per layer, the worst first: the norm of its change, and the share of that which its factors "
        f"lack.\n\n| layer | rank | change | error |\n|---|---:|---:|---:|\n{rows}".rstrip("\n")
    )


def _with_comfyui(adapter: ModelAdapter, name: str, facts: ModelFacts, format: Format) -> str:
    if adapter.comfyui is None:
        return ""
    if not isinstance(format, ComfyUI):
        return "ComfyUI reads factors: `fewstep export RUN --format comfyui` writes them with a graph that draws."
    sigmas = ", ".join(f"{sigma:.6g}" for sigma in adapter.comfyui.sigmas(facts.sigmas or ()))
    return (
        f"Copy `{name}.safetensors` into `models/loras`, open `workflow.json`, and choose your files of the teacher in "
        f"its loaders. In a graph of your own: strength 1, cfg 1, sampler {sampler_name(facts)}, sigmas {sigmas} "
        "(ManualSigmas); no node that shifts the schedule."
    )


def _licence(story: Story, facts: ModelFacts) -> str:
    teacher = facts.provenance.get("teacher")
    if story.licence is None:
        return f"That of the teacher, `{teacher}`, whose page was not at hand when this was written; look there."
    return f"That of the teacher, `{teacher}`: {story.licence}."


def _rows(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"| {key.replace('_', ' ')} | {_cell(value)} |\n" for key, value in facts.items())
    return f"| | |\n|---|---|\n{rows}".rstrip("\n")


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "-" if value is None else str(value)
