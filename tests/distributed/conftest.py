"""One launch per number of processes for the whole test session, whichever worker asks first."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.training.tiny_run import write_inputs


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session share, with the inputs of the tiny run."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "several-processes"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            write_inputs(folder, blocks=3)  # so that two are gathered ahead of one
    return folder


@pytest.fixture(scope="session")
def launched(shared: Path) -> Callable[[int, str], Path]:
    """Call with a number of processes and a part; the scenarios of both have run in the returned folder."""

    def launch(size: int, part: str) -> Path:
        if size == 4:
            launch(2, "quick")  # what it saved is resumed here
        done = shared / f"launched-{size}-{part}"
        with FileLock(f"{done}.lock"):
            if not done.exists():
                done.write_text(start(size, "-m", "tests.distributed.scenarios", str(shared), part).stderr)
        return shared

    return launch


def start(size: int, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program on several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *arguments]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=root, env=settings, check=False)
