"""How much memory this machine has to give, within the limits of its container, and what of it Java gets as heap.

Knows Linux's files and asks the system elsewhere. What comes back is in MB (1,048,576 bytes), as Java counts.
"""

import os
from pathlib import Path, PurePosixPath

from textcap.scoring.java_errors import JavaError

_MB = 1 << 20
# In an unlimited group the first version says a number near 2**63, the second says "max".
_UNLIMITED = 1 << 60


def available_mb(root: Path = Path("/")) -> int | None:
    """Return what may be taken now without swapping, or None where the system does not tell.

    Args:
        root: Where `proc` and `sys` lie.
    """
    bounds = [value for value in (_machine_bytes(root), _group_bytes(root)) if value is not None]
    if not bounds and root == Path("/"):
        bounds = _half_of_all()
    return max(0, min(bounds)) // _MB if bounds else None


def heap_mb(wanted_mb: int, least_mb: int) -> int:
    """Return how much heap to give a program, in MB: what it wants, or as much as the machine has now.

    Args:
        wanted_mb: More than this would not help.
        least_mb: Less than this would fail.

    Raises:
        JavaError: There is less.
    """
    heaps = heaps_mb((wanted_mb, least_mb))
    if heaps is None:
        message = f"needs {least_mb * 4 // 3:,} MB of memory, and {available_mb() or 0:,} MB are free"
        raise JavaError(message, problem="no memory", hint="end other programs, or use a machine with more")
    return heaps[0]


def heaps_mb(*bounds_mb: tuple[int, int]) -> list[int] | None:
    """Share out the memory that the machine has now among programs that run at the same time.

    Args:
        bounds_mb: For each program the heap that it wants, and the least that it can do with.

    Returns:
        A heap for each, or None where they do not fit together.
    """
    available = available_mb()
    wanted, least = (sum(column) for column in zip(*bounds_mb, strict=True))
    # Java takes memory beside its heap: for code, classes and threads.
    total = wanted if available is None else min(wanted, available * 3 // 4)
    if total < least:
        return None
    spare, most = total - least, wanted - least
    return [low + ((high - low) * spare // most if most else 0) for high, low in bounds_mb]


def _machine_bytes(root: Path) -> int | None:
    for line in _lines(root / "proc" / "meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdecimal():
            return int(value.split()[0]) * 1024
    return None


def _group_bytes(root: Path) -> int | None:
    """Return what the control groups of this process leave it; every group above it may be the tighter one."""
    least = None
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, name = (line.split(":", 2) + ["", ""])[:3]
        if not controllers:
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Inside a container the name may be that of the machine outside, and then only the top is there.
        inside = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
        for depth in range(len(inside) + 1):
            left = _left_in(base.joinpath(*inside[:depth]), limit, used)
            if left is not None:
                least = left if least is None else min(least, left)
    return least


def _left_in(folder: Path, limit: str, used: str) -> int | None:
    most, now = _number(folder / limit), _number(folder / used)
    if most is None or most >= _UNLIMITED:
        return None
    # Files that were read stay in memory and count as used, but give way.
    kept = sum(int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith("inactive_file "))
    return most - max(0, (now or 0) - kept)


def _half_of_all() -> list[int]:
    try:
        return [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
