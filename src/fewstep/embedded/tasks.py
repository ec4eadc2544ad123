"""The tasks inside the package, by name."""

from collections.abc import Mapping
from typing import Any

from fewstep.embedded.digits.task import Digits
from fewstep.embedded.scenes.task import Scenes
from fewstep.embedded.task import EmbeddedTask

TASKS: Mapping[str, EmbeddedTask[Any]] = {task.name: task for task in (Digits(), Scenes())}
