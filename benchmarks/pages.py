"""Tables of pages that are written by programs: between `<!-- table: NAME -->` and `<!-- end -->`."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with every table as its files say."""
    for name, written in tables.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda match, written=written: f"{match[1]}{written()}\n{match[2]}", page)
    return page


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, the first one as the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join(['---'] * len(rows[0]))} |", *lines[1:]])
