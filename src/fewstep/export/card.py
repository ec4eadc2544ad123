"""The README.md of what was written: what it is, how it draws, where it comes from."""

from collections.abc import Mapping
from typing import Any

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.export.formats import PIPELINE, Format, Pipeline
from fewstep.export.low_rank import Extraction


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
) -> str:
    """The text of README.md.

    Args:
        name: Of the folder.
        facts: What ``fewstep.json`` says of the student.
        code: That draws with it in plain diffusers, run beside the folder.
        difference: Between what the run's student draws and what was written draws.
        extraction: What low-rank factors leave out.
    """
    sections = [
        ("Draw with plain diffusers", _with_diffusers(adapter, name, facts, code, format)),
        ("What was compared", "" if difference is None else _compared(difference, dtype)),
        ("What the factors lack", "" if extraction is None else _lacking(extraction)),
        ("Where it comes from", _origin(facts.provenance, dtype)),
    ]
    body = "".join(f"## {title}\n\n{text}\n\n" for title, text in sections if text)
    return f"# {name}\n\n{_opening(facts, format)}\n\n{body}".rstrip("\n") + "\n"


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
    steps = len(facts.sigmas or ())
    grid = (
        "scheduler takes the sigmas as they are, and a call without them draws poorer pictures."
        if adapter.call_kwargs(facts.sigmas or ()).keys() & {"sigmas", "timesteps"}
        else f"scheduler holds that grid, and a call with another number of steps than {steps} draws something poorer."
    )
    file = "picture.png" if adapter.frame_rate is None else "video.gif"
    ours = f'\n\nOr with fewstep: `fewstep sample {name} --prompt "..." --steps {steps} --output {file}`'
    return (
        "Run this beside the folder. The grid of noise levels and the guidance scale belong to the student: its "
        f"{grid}\n\n```python\n{code}```{ours if isinstance(format, Pipeline) else ''}"
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


def _origin(provenance: Mapping[str, Any], dtype: str) -> str:
    rows = "".join(f"| {key.replace('_', ' ')} | {_cell(value)} |\n" for key, value in provenance.items())
    return f"| | |\n|---|---|\n{rows}| weights | {dtype} |"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "-" if value is None else str(value)
