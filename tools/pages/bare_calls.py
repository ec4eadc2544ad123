"""Write the table of docs/exporting.md: python -m tools.pages.bare_calls docs/exporting.md

It stands between ``<!-- table: bare calls -->`` and ``<!-- end -->``: for each family, what an exported student's
folder states and what ``pipeline(prompt=...)`` has to be told besides, from the published configurations and diffusers'
signatures.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.stock import bare_call, student_call
from fewstep.config.recipe import load_recipe
from fewstep.planning.meta_networks import planned_adapter
from fewstep.planning.porting_matrix import PORTED
from tools.pages.plans import line

HEADINGS = ("family", "pipeline", "the folder states", "`pipeline(prompt=...)`", "a call says", "and by itself takes")
_PLACE = re.compile(r"(<!-- table: bare calls -->\n).*?(<!-- end -->)", re.DOTALL)


def rows() -> Iterator[str]:
    """The lines, one for each family whose recipe ships."""
    seen = set()
    for target in PORTED:
        config = load_recipe(target.name).config
        if config.backbone.kind not in seen:
            seen.add(config.backbone.kind)
            yield row(planned_adapter(config.backbone), config.sampling.levels)


def row(adapter: DiffusersAdapter, levels: tuple[float, ...]) -> str:
    """One line."""
    sigmas = adapter.to_sigma(torch.tensor(levels)).tolist()
    call = student_call(adapter, sigmas, whole=True)
    bare = bare_call(adapter, call)
    stated = [] if call.keys() & {"sigmas", "timesteps"} else ["grid"]
    stated += [] if "num_inference_steps" in call else ["steps"]
    stated += [] if adapter.guidance.argument in bare else ["guidance"]
    told = {name: "..." if name in {"sigmas", "timesteps"} else repr(call[name]) for name in bare}
    return line(
        (
            adapter.kind,
            f"`{adapter.student_index(sigmas)['_class_name']}`",
            ", ".join(stated) or "nothing",
            "not right" if bare else "**right**",
            ", ".join(f"`{name}={value}`" for name, value in told.items()) or "nothing",
            ", ".join(f"`{name}={value!r}`" for name, value in bare.items()) or "the same",
        )
    )


def table() -> str:
    """All lines."""
    return "\n".join([line(HEADINGS), line(["---"] * len(HEADINGS)), *rows()])


def filled(page: str, text: str) -> str:
    """The page with the table in its place."""
    return _PLACE.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text(encoding="utf-8"), table()), encoding="utf-8")
