"""What settings call dtypes and devices, their free memory, and the number of CPU threads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from fewstep.errors import ConfigError, shown

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What networks compute in."""
_MEMINFO = Path("/proc/meminfo")


def fastest_device() -> str:
    """The device that ``auto`` means on this machine: CUDA, then Apple's, then the CPU."""
    return next(name for name, found in _here().items() if found)


def cpu_multiplies_bf16() -> bool | None:
    """Whether this CPU has instructions for products of bfloat16 matrices; None where torch does not know.

    Without them torch widens every value, which takes longer than float32.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in older ones
    told: Mapping[str, object] = {} if capabilities is None else capabilities()
    known = [bool(told[name]) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16") if name in told]
    return any(known) if known else None


def device_with_room(num_bytes: float) -> str:
    """The fastest device, or the CPU where its free memory is known to be less than that."""
    name = fastest_device()
    return "cpu" if name == "cuda" and torch.cuda.mem_get_info()[0] < num_bytes else name


def choose_device(asked: str) -> torch.device:
    """The device that ``parallel.device`` asks for.

    Raises:
        ConfigError: It asks for one that is not here.
    """
    if asked == "auto":
        return torch.device(fastest_device())
    if not _here()[asked]:
        raise ConfigError(
            f"parallel.device is {asked}, which PyTorch does not find on this machine; "
            f"use parallel.device=auto, or install the PyTorch build for it."
        )
    return torch.device(asked)


def require_device(name: str) -> torch.device:
    """The device of ``--device``, ``auto`` being the fastest one.

    Raises:
        ConfigError: This torch cannot calculate on it.
    """
    if name == "auto":
        return torch.device(fastest_device())
    try:
        torch.ones(1, device=name).sum().item()
    # a backend that is not compiled in fails an assertion; one that is not there raises one of the others
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"--device {shown(name, quoted=False)} cannot be used here ({shown(reason, 200, quoted=False)}); leave it "
            "out to have the fastest one."
        ) from error
    return torch.device(name)


def _here() -> Mapping[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Compute with ``count`` threads, None leaving them as they are, and give the caller's back."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors of this process could still take on a device; None where that cannot be found out."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not _MEMINFO.is_file():
        return None
    numbers = dict(line.split()[:2] for line in _MEMINFO.read_text().splitlines())
    own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
    return min([int(numbers["MemAvailable:"]) * 1024, *_free_in_groups(Path("/sys/fs/cgroup"), own)])


def _free_in_groups(root: Path, own: str) -> Iterator[int]:
    """What the limits of control groups leave, as of a container or a scheduler's job; Linux only."""
    for group in (root / own.lstrip("/"), *(root / own.lstrip("/")).parents):
        limit, used = group / "memory.max", group / "memory.current"
        if group.is_relative_to(root) and limit.is_file() and limit.read_text().strip() != "max":
            pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            # pages of files that were read are given back before memory is short
            yield int(limit.read_text()) - int(used.read_text()) + int(pages.get("inactive_file", 0))
