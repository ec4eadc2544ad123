"""The page: a tab to draw in, a tab that follows a run. Whatever it shows was made as HTML elsewhere, and escaped."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.bounds import GuidanceScale, Steps, most
from fewstep.errors import FewstepError
from fewstep.prompts.text import require_prompt
from fewstep.ui.html import note_html, rows_html
from fewstep.ui.offers import Named, Offer
from fewstep.ui.run_view import curves_html, progress_html, sheet_html, sheets_of, stamp_of, story_html
from fewstep.ui.studio import LADDER, Asked, Order, Row, Studio

_MOST_STEPS, _PICTURES, _MOST_PICTURES = 8, 4, 8
_LADDER = ", ".join(map(str, LADDER))
_SECONDS = 2.0
"""Between looks at a run."""
_QUIETLY = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
_ONE_AT_A_TIME = {
    "concurrency_limit": 1,
    "concurrency_id": "draw",
    "api_visibility": "private",
    "show_progress": "minimal",
}
_Make = Callable[[Order, Sequence[Offer]], list[Asked]]


def build(named: Named, studio: Studio) -> Any:
    """The page as gradio's Blocks; needs the extra ``ui``."""
    import gradio as gr

    with gr.Blocks(title="fewstep", analytics_enabled=False) as page:
        _html(gr, '<header class="fs-head"><b>fewstep</b></header>')
        with gr.Tabs():
            if named.offers:
                with gr.Tab("Draw"):
                    _draw_tab(gr, named.offers, studio)
            if named.runs:
                with gr.Tab("Run"):
                    _run_tab(gr, named, studio)
    return page


def _draw_tab(gr: Any, offers: Sequence[Offer], studio: Studio) -> None:
    few, others = [offer for offer in offers if offer.few], [offer for offer in offers if not offer.few]
    chosen = [offer for offer in offers if offer.chosen]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(offers[0].example, label="Prompt", lines=2, elem_id="fs-prompt")
            names = [offer.name for offer in offers]
            models = gr.Dropdown(names, value=[offer.name for offer in chosen], multiselect=True, label="Models")
            own = min(few[0].steps, _MOST_STEPS) if few else None
            steps = gr.Slider(1, _MOST_STEPS, own, step=1, label="Students' steps", visible=bool(few), buttons=[])
            with gr.Row(visible=bool(others)):
                own_steps, own_scale = (others[0].steps, others[0].guidance_scale) if others else (None, None)
                teacher_steps = gr.Number(
                    own_steps,
                    label="Teacher's steps",
                    minimum=1,
                    maximum=most(Steps),
                    precision=0,
                    min_width=120,
                    elem_id="fs-teacher-steps",
                )
                guidance = gr.Number(
                    own_scale,
                    label="Teacher's guidance",
                    minimum=0,
                    maximum=most(GuidanceScale),
                    step=0.5,
                    min_width=120,
                )
            with gr.Row():
                seed = gr.Number(0, label="Seed", minimum=0, precision=0, min_width=120, elem_id="fs-seed")
                count = gr.Slider(1, _MOST_PICTURES, _PICTURES, step=1, label="Pictures", min_width=120, buttons=[])
            draw = gr.Button("Draw", variant="primary", elem_id="fs-draw")
            ladder = gr.Button(f"Draw in {_LADDER} steps", elem_id="fs-ladder")
            stop = gr.Button("Stop", visible=False, elem_id="fs-stop")
        with gr.Column(scale=5, min_width=320):
            shown = _html(gr, rows_html("", [Row(offer, _PICTURES, []) for offer in chosen]), elem_id="fs-shown")
    fields, outputs = [prompt, models, steps, teacher_steps, guidance, seed, count], [shown, draw, ladder, stop]
    pictures = partial(_draw, gr, studio, offers, Order.pictures, "seed")
    gr.on([draw.click, prompt.submit], pictures, fields, outputs, **_ONE_AT_A_TIME)
    ladder.click(partial(_draw, gr, studio, offers, Order.ladder, "steps"), fields, outputs, **_ONE_AT_A_TIME)
    stop.click(studio.stop, **_QUIETLY)


def _html(gr: Any, content: str = "", **options: Any) -> Any:
    """HTML as it is written here, without gradio's own look."""
    return gr.HTML(content, apply_default_css=False, **options)


def _draw(
    gr: Any, studio: Studio, offers: Sequence[Offer], make: _Make, caption: str, prompt: str, *others: Any
) -> Iterator[tuple[Any, ...]]:
    """Pictures as they come, and in place of the other buttons one that stops for as long."""
    here, gone = gr.update(visible=True), gr.update(visible=False)
    try:
        asked = make(Order(require_prompt(prompt, place="The prompt"), *others), offers)
    except FewstepError as error:
        yield note_html(str(error)), here, here, gone
        return
    if not asked:
        yield note_html("No model is chosen."), here, here, gone
        return
    rows: list[Row] = []
    for rows in studio.draw(asked):
        yield rows_html(prompt, rows, caption=caption), gone, gone, here
    yield rows_html(prompt, rows, caption=caption), here, here, gone


def _run_tab(gr: Any, named: Named, studio: Studio) -> None:
    first = named.runs[0]
    paths = [str(path) for path in named.runs]
    run = gr.Dropdown(paths, value=paths[0], label="Run", visible=len(paths) > 1)
    progress = _html(gr, _safely(progress_html, first))
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            curves = _html(gr, _safely(curves_html, first), elem_id="fs-curves")
        with gr.Column(scale=3, min_width=320):
            sheet = _html(gr, _sheet(str(first), None), elem_id="fs-sheet")
            position = gr.Slider(**_positions(first), step=1, label="Sheet", elem_id="fs-position", buttons=[])
            story = _html(gr, _safely(story_html, first))
    _html(gr, "<h3>The student in more and more steps</h3>")
    with gr.Row(equal_height=True):
        example = named.offers[0].example if named.offers else ""
        prompt = gr.Textbox(example, label="Prompt", scale=4, min_width=300)
        seed = gr.Number(0, label="Seed", minimum=0, precision=0, scale=1, min_width=120)
        draw = gr.Button(f"Draw in {_LADDER} steps", variant="primary", scale=1, min_width=260, elem_id="fs-climb")
        stop = gr.Button("Stop", visible=False, scale=1, min_width=260)
    shown, seen = _html(gr, elem_id="fs-climbed"), gr.State(None)
    position.change(_sheet, [run, position], sheet, **_QUIETLY, trigger_mode="always_last")
    live = [progress, curves, position, sheet, seen]
    gr.Timer(_SECONDS).tick(partial(_look, gr), [run, seen], live, **_QUIETLY)
    run.change(lambda path: [*_look(gr, path, None), _safely(story_html, Path(path))], run, [*live, story], **_QUIETLY)

    def climb(path: str, prompt: str, seed: float | None) -> Iterator[tuple[Any, ...]]:
        offers = named.of_run(Path(path))
        names = [offer.name for offer in offers]
        for told in _draw(gr, studio, offers, Order.ladder, "steps", prompt, names, None, None, None, seed):
            yield told[0], told[1], told[3]

    draw.click(climb, [run, prompt, seed], [shown, draw, stop], **_ONE_AT_A_TIME)
    stop.click(studio.stop, **_QUIETLY)


def _positions(path: Path) -> dict[str, Any]:
    """The slider over a run's sheets, on the newest one."""
    number = len(sheets_of(path))
    return {"minimum": 1, "maximum": max(number, 2), "value": max(number, 1), "visible": number > 1}


def _look(gr: Any, path: str, seen: Any) -> list[Any]:
    """What is new of a run since the last look; curves and sheets stay as they are while nothing is."""
    run = Path(path)
    try:
        now = [path, *stamp_of(run), len(sheets_of(run))]
        shown = progress_html(run)
        if seen == now:
            return [shown, gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        newest = seen is None or seen[0] != path or seen[-1] != now[-1]
        place = gr.update(**_positions(run)) if newest else gr.skip()
        return [shown, curves_html(run), place, _sheet(path, None) if newest else gr.skip(), now]
    except FewstepError as error:
        return [note_html(str(error)), gr.skip(), gr.skip(), gr.skip(), None]


def _sheet(path: str, position: float | None) -> str:
    """One sheet of a run; None is the newest."""
    sheets = sheets_of(Path(path))
    if not sheets:
        return note_html("No sample sheet was painted yet.")
    return sheet_html(sheets[-1 if position is None else min(int(position), len(sheets)) - 1])


def _safely(show: Callable[[Path], str], run: Path) -> str:
    try:
        return show(run)
    except FewstepError as error:
        return note_html(str(error))
