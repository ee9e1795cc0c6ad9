"""Determine the memory that is available, within the limits of a container, and how much of it Java may use as heap.

All sizes are in MB of 1,048,576 bytes, as in Java's options.
"""

import os
from pathlib import Path, PurePosixPath

from textcap.scoring.java_errors import JavaError

_MB = 1 << 20
# For an unlimited group, version 1 of control groups gives a number near 2**63; version 2 gives "max".
_UNLIMITED = 1 << 60


def available_mb(root: Path = Path("/")) -> int | None:
    """Return the memory in MB that can be allocated now without swapping, or None if the system does not report it.

    Args:
        root: The folder that contains `proc` and `sys`.
    """
    bounds = [value for value in (_machine_bytes(root), _group_bytes(root)) if value is not None]
    if not bounds and root == Path("/"):
        bounds = _half_of_total()
    return max(0, min(bounds)) // _MB if bounds else None


def heap_mb(wanted_mb: int, least_mb: int) -> int:
    """Return the heap for a program in MB: what it can use, or as much as is available.

    Args:
        wanted_mb: The most that the program can use.
        least_mb: The least with which the program works.

    Raises:
        JavaError: Less than `least_mb` is available.
    """
    heaps = heaps_mb((wanted_mb, least_mb))
    if heaps is None:
        message = f"Java needs {least_mb * 4 // 3:,} MB of memory, but only {available_mb() or 0:,} MB are free"
        raise JavaError(message, problem="no memory", hint="close other programs, or use a machine with more memory")
    return heaps[0]


def heaps_mb(*bounds_mb: tuple[int, int]) -> list[int] | None:
    """Divide the available memory among programs that run at the same time.

    Args:
        bounds_mb: For each program, the largest heap that it can use and the smallest with which it works, in MB.

    Returns:
        The heap of each program in MB, or None if they do not fit together.
    """
    available = available_mb()
    wanted, least = (sum(column) for column in zip(*bounds_mb, strict=True))
    # Besides its heap, Java needs memory for code, classes and threads.
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
    """Return the bytes that the control groups of this process leave: the least of its own group and those above."""
    least = None
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, name = (line.split(":", 2) + ["", ""])[:3]
        if not controllers:
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the name may be that on the host, and then only the top group exists.
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
    # Cached files count as used, but are dropped when memory is needed.
    cached = sum(int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.startswith("inactive_file "))
    return most - max(0, (now or 0) - cached)


def _half_of_total() -> list[int]:
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
