"""Which installed packages a run stands on, and what is told when one of them is gone."""

from collections.abc import Iterator, Mapping
from typing import Any

from fewstep.backbones.registry import BUILT_IN
from fewstep.errors import ConfigError, shown
from fewstep.methods.terms import Terms
from fewstep.plugins import BACKBONES, TERMS, find, package_of


def packages_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Name and version of the package behind every setting that only a package knows, by that setting."""
    found = ((setting, find(group, name, built_in=())) for setting, group, name in _added(settings))
    return {setting: package_of(entry, version=True) for setting, entry in found if entry is not None}


def require_packages(settings: Mapping[str, Any], recorded: Mapping[str, Any], *, place: str) -> None:
    """Find out that a run's package is missing, before its settings are found to be none.

    Args:
        settings: Of the run, as they are read.
        recorded: What :func:`packages_of` said when the run was written.
        place: The run, for messages.

    Raises:
        ConfigError: A package is missing.
    """
    present = packages_of(settings)
    for setting, _, _ in _added(settings):
        if setting in recorded and setting not in present:
            raise ConfigError(
                f"{place} has the setting {shown(setting, quoted=False)} of the package "
                f"{shown(recorded[setting], quoted=False)}, which is not installed; install it to open the run."
            )


def _added(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Setting, group and name of everything that is not built in."""
    backbone, terms = settings.get("backbone"), settings.get("terms")
    kind = backbone.get("kind") if isinstance(backbone, Mapping) else None
    if isinstance(kind, str) and kind not in BUILT_IN:
        yield f"backbone.kind={kind}", BACKBONES, kind
    for name, value in terms.items() if isinstance(terms, Mapping) else ():
        if value is not None and name not in Terms.model_fields:
            yield f"terms.{name}", TERMS, name
