"""A hook of mkdocs: llms.txt, the list of all pages with their first sentences, for readers that are programs."""

import re
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NO_PROSE = re.compile(r"#|\||!\[|<!--|:::|[-*] ")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


def on_nav(nav: Any, config: Any, files: Any) -> None:
    """Keep the order of the pages; mkdocs reads their text afterwards."""
    config.extra["pages"] = list(nav.pages)


def on_post_build(config: Any) -> None:
    """Write the list beside the pages."""
    lines = [f"- [{page.title}]({page.url or '.'}): {first_sentence(page.markdown)}" for page in config.extra["pages"]]
    text = "\n".join([f"# {config.site_name}", "", f"> {config.site_description}", "", "## Pages", "", *lines, ""])
    Path(config.site_dir, "llms.txt").write_text(text, encoding="utf-8")


def first_sentence(markdown: str) -> str:
    """The first sentence of a page's first paragraph, without links and blocks of code."""
    paragraphs = (" ".join(part.split()) for part in _FENCE.sub("", markdown).split("\n\n"))
    prose = (text for text in paragraphs if text and not _NO_PROSE.match(text))
    plain = _LINK.sub(r"\1", next(prose, "")).replace("**", "")
    return re.split(r"(?<=[.?!]) ", plain, maxsplit=1)[0]
