"""What the page shows of pictures and words, as HTML in which everything that somebody wrote is text."""

import base64
from collections.abc import Sequence
from html import escape

from fewstep.ui.studio import Row, Shot

_MOST_COLUMNS = 5
_SMALL = 256
"""Pixels of a picture's width below which it is enlarged with its pixels to be seen."""


def rows_html(prompt: str, rows: Sequence[Row], *, caption: str = "seed") -> str:
    """Models one below the other, their pictures in the same columns.

    Args:
        caption: What stands below a picture: its ``seed`` or its ``steps``.
    """
    told = "".join(_row(row, prompt, caption) for row in rows)
    most = max((row.expected for row in rows), default=1)
    columns = most if most <= _MOST_COLUMNS else -(-most // 2)
    heading = f'<p class="fs-prompt">{escape(prompt)}</p>' if prompt else ""
    return f'<div class="fs-rows" style="--fs-columns:{columns}">{heading}{told}</div>'


def note_html(text: str) -> str:
    """A sentence by itself."""
    return f'<p class="fs-note">{escape(text)}</p>'


def _row(row: Row, prompt: str, caption: str) -> str:
    width = row.offer.size[1]
    kind = "student" if row.offer.few else "teacher"
    shown = [_figure(shot, row, prompt, caption) for shot in row.shots]
    waiting = row.expected - len(row.shots) if not row.problem else 0
    ratio = f"aspect-ratio:{width}/{row.offer.size[0]}"
    shown += [f'<div class="fs-blank" style="{ratio}"></div>' for _ in range(waiting)]
    doing = f'<span class="fs-doing">{escape(row.doing)} …</span>' if row.doing else ""
    problem = f'<p class="fs-problem">{escape(row.problem)}</p>' if row.problem else ""
    return (
        f'<section class="fs-row fs-{kind}"><header><b>{escape(row.offer.name)}</b>'
        f"<span>{escape(_told(row, caption))}</span>{doing}</header>{problem}"
        f'<div class="fs-pictures">{"".join(shown)}</div></section>'
    )


def _told(row: Row, caption: str) -> str:
    """Steps, guidance and seconds of what is there; nothing before the first picture."""
    if not row.shots:
        return ""
    told = [] if row.offer.few else [f"guidance {row.shots[0].guidance_scale:g}"]
    if caption == "seed":
        seconds = sum(shot.seconds for shot in row.shots) / len(row.shots)
        told = [_steps(row.shots[0]), *told, f"{seconds:.2g} s per picture"]
    return " · ".join(told)


def _steps(shot: Shot) -> str:
    return f"{shot.steps} step{'s' * (shot.steps != 1)}"


def _figure(shot: Shot, row: Row, prompt: str, caption: str) -> str:
    data = f"data:{shot.media};base64,{base64.b64encode(shot.content).decode()}"
    below = f"seed {shot.seed}" if caption == "seed" else f"{_steps(shot)} · {shot.seconds:.2g} s"
    said = f"{row.offer.name}, {_steps(shot)}, seed {shot.seed}: {prompt}"
    pixels = ' class="fs-pixels"' if row.offer.size[1] < _SMALL else ""
    ending = shot.media.rpartition("/")[2]
    return (
        f'<figure><a href="{data}" download="{shot.steps}-steps-seed-{shot.seed}.{ending}" title="Save this picture">'
        f'<img{pixels} src="{data}" alt="{escape(said)}"></a><figcaption>{below}</figcaption></figure>'
    )
