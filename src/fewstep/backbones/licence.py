"""The licence of a checkpoint, as the head of its README.md states it."""

import re
from dataclasses import dataclass

from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.source import find_file, locate

_MAX_BYTES = 2**16
_HEAD = re.compile(r"\A---\s*\n(?P<fields>.*?)\n---", re.DOTALL)
_FIELD = re.compile(r"^license(?P<part>_name|_link)?: *[\"']?(?P<value>[\w.:/+#-]{1,200})[\"']? *$", re.MULTILINE)


@dataclass(frozen=True)
class Licence:
    """As the hub writes it.

    Attributes:
        identifier: Such as ``apache-2.0``; ``other`` where only the name says which.
    """

    identifier: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        named = self.name or self.identifier
        return f"{named} ({self.link})" if self.link and self.link.startswith("https://") else named


def licence_of(config: BackboneConfig) -> Licence | None:
    """The licence that the model's own page states; None when it states none, or the page is not at hand."""
    file = find_file(locate(config.origin), "README.md", revision=config.revision)
    if file is None:
        return None
    with file.open("rb") as opened:
        head = _HEAD.match(opened.read(_MAX_BYTES).decode("utf-8", errors="replace"))
    found = {match["part"]: match["value"] for match in _FIELD.finditer(head["fields"] if head else "")}
    return Licence(found[None], found.get("_name"), found.get("_link")) if None in found else None
