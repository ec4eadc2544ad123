"""A package with a loss term, as it lies on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

Install = Callable[[str, str, Mapping[str, str]], Path]
SOURCE = '''
from pydantic import Field

from fewstep.core import objectives
from fewstep.methods.terms import Term


class Attraction(Term):
    strength: float = Field(default=2.0, ge=0)

    @property
    def asks_fake_score(self):
        return True

    def direction(self, views):
        return self.strength * objectives.distribution_matching(views.x0_teacher, views.x0_fake)


class Nothing(Term):
    """Says no direction."""


NOT_A_TERM = 3
'''


def add(
    install: Install, entry_point: str = "attract = outside_term:Attraction", *, name: str = "outside-term"
) -> Path:
    """Install the package under a name, with one entry point."""
    module = f"{name.replace('-', '_')}.py"
    return install(name, f"[fewstep.terms]\n{entry_point}\n", {module: SOURCE})
