"""The tables of settings in docs/backbones, made from the recipes and the released configurations.

Write them again with ``python -m tests.backbones.pages``.
"""

from pathlib import Path

from fewstep.backbones import ModelAdapter, adapter_class
from fewstep.config import load_recipe
from fewstep.planning.porting_matrix import PORTED
from tests.backbones.families import REAL_CONFIGURATIONS
from tools.pages.settings import settings_table

FOLDER = Path(__file__).parents[2] / "docs" / "backbones"
PAGES = {
    **{name: f"{name}.md" for name in ("flux", "longcat", "sana", "sd3", "sd15", "sdxl", "wan", "cogvideox")},
    **{name: f"{name}.md" for name in ("z-image", "flux2-klein", "chroma", "krea2", "qwen-image", "qwen-image-2.1")},
    **{"pixart": "pixart-sigma.md", "flux2": "flux2-dev.md"},
}
BEGIN, END = "<!-- settings -->\n", "<!-- end -->"


def adapters(family: str) -> dict[str, ModelAdapter]:
    """The adapter of every recipe of a family, by the recipe's name."""
    made = {}
    for target in PORTED:
        if target.family == family:
            config = load_recipe(target.name).config.backbone
            made[target.name] = adapter_class(family)(config, REAL_CONFIGURATIONS[target.name].components)
    return made


def filled(family: str, page: str) -> str:
    """The page with its table of settings as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + settings_table(adapters(family)) + END + rest.partition(END)[2]


if __name__ == "__main__":
    for family, name in PAGES.items():
        path = FOLDER / name
        path.write_text(filled(family, path.read_text(encoding="utf-8")), encoding="utf-8")
