"""Pictures of the demo's digits on disk, one per prompt and seed."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fewstep.embedded.digits.prompts import NUM_COLOURS, full_prompts
from fewstep.scores.metric import Picture, PromptItem
from tools.embedded_teacher.pictures import draw_prompted, load_held_out


def write_digits(folder: Path, kinds: Sequence[int], *, seeds: int = 1, noise: int = 0) -> list[Picture]:
    """Real digits for some of the 70 full prompts, by their number, ``seeds`` pictures each."""
    folder.mkdir(parents=True, exist_ok=True)
    repeated = [kind for kind in kinds for _ in range(seeds)]
    choices: list[tuple[int, int | None]] = [(kind // NUM_COLOURS, kind % NUM_COLOURS) for kind in repeated]
    drawn = draw_prompted(load_held_out(), choices, seed=noise)
    pictures = []
    for number, (kind, pixels) in enumerate(zip(repeated, drawn.pixels, strict=True)):
        path = folder / f"{number:03}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
        pictures.append(Picture(path, PromptItem(f"d{kind}", full_prompts()[kind]), seed=number % seeds))
    return pictures
