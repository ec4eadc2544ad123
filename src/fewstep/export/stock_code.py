"""Python code that draws with what was written, in plain diffusers and exactly as our own sampler does."""

from typing import Any

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.source import embedded_task
from fewstep.backbones.stock import loads_lora, student_call
from fewstep.core.points import Step
from fewstep.export.formats import WRITTEN


def example_prompt(adapter: ModelAdapter) -> str:
    """What the examples draw."""
    task = embedded_task(adapter.config.model)
    return "a lighthouse on a cliff at dusk" if task is None else task.example


def pipeline_code(adapter: ModelAdapter, folder: str, facts: ModelFacts, *, dtype: str) -> str:
    """Code that draws once with an exported pipeline; noise that is drawn on the way is not ours.

    Args:
        folder: Where the code looks for the student.
        facts: What ``fewstep.json`` says of it.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
    """
    # stated also for fp32: the text encoders may be stored in another precision, in which they would be loaded
    return (
        "import torch\n"
        f"from diffusers import DiffusionPipeline\n{_imports(adapter)}\n"
        f'pipeline = DiffusionPipeline.from_pretrained("{folder}"{_load(adapter, dtype)})\n'
        f"{_call(adapter, facts, whole=True)}"
        f"{_drawn_and_saved(adapter, facts.step)}"
    )


def factors_code(adapter: ModelAdapter, folder: str, facts: ModelFacts, *, teacher: str, dtype: str, file: str) -> str:
    """Code that draws once with the teacher and low-rank factors on it.

    Args:
        folder: Where the code looks for the factors and their scheduler.
        facts: What ``fewstep.json`` says of the student.
        teacher: Where it looks for the teacher.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        file: The factors' file in the folder.
    """
    scheduler = type(adapter.sampling_scheduler(facts.sigmas or (), step=facts.step)).__name__
    component = adapter.network_component
    loader = (
        f'pipeline.load_lora_weights("{folder}", weight_name="{file}")'
        if loads_lora(adapter)
        else f'pipeline.{component}.load_lora_adapter("{folder}", prefix="{component}", weight_name="{file}")'
    )
    imports, place = _imports(adapter), f'"{teacher}"'
    if (task := embedded_task(teacher)) is not None:  # a name that diffusers does not know
        imports = f"{imports}from fewstep.embedded.tasks import TASKS\n"
        place = f'TASKS["{task.name}"].teacher_folder()'
    return (
        "import torch\n"
        f"from diffusers import DiffusionPipeline, {scheduler}\n{imports}\n"
        f"pipeline = DiffusionPipeline.from_pretrained({place}{_load(adapter, dtype)})\n"
        f"{loader}\n"
        f'pipeline.scheduler = {scheduler}.from_pretrained("{folder}", subfolder="scheduler")\n'
        f"{_call(adapter, facts, whole=False)}"
        f"{_drawn_and_saved(adapter, facts.step)}"
    )


def _load(adapter: ModelAdapter, dtype: str) -> str:
    load: dict[str, Any] = {"dtype": WRITTEN[dtype], **adapter.load_kwargs()}
    return "".join(f", {name}={value!r}" for name, value in load.items())


def _call(adapter: ModelAdapter, facts: ModelFacts, *, whole: bool) -> str:
    told = student_call(adapter, facts.sigmas or (), whole=whole)
    call = "".join(f"    {name}={value!r},\n" for name, value in told.items())
    return f"call = dict(\n{call})\n"


def _imports(adapter: ModelAdapter) -> str:
    return "" if adapter.frame_rate is None else "from diffusers.utils import export_to_gif\n"


def _drawn_and_saved(adapter: ModelAdapter, step: Step) -> str:
    """Calls ``pipeline`` with ``call`` and writes what it draws: one picture, or one video."""
    # not every pipeline hands its generator to a scheduler that draws noise
    seeded = "torch.manual_seed(0)\n" if step == "renoise" else ""
    prompt = example_prompt(adapter)
    asked = f'pipeline(prompt="{prompt}", generator=torch.Generator().manual_seed(0), **call'
    if adapter.frame_rate is None:
        return f'{seeded}image = {asked}).images[0]\nimage.save("picture.png")\n'
    saved = f'export_to_gif(frames, "video.gif", fps={adapter.frame_rate})'
    return f'{seeded}frames = {asked}, output_type="pil").frames[0]\n{saved}\n'
