"""What memory this process may still take, and refusing work that needs more before it is begun."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from theory.support.errors import UserError

if sys.platform != "win32":
    import resource

_CGROUP = Path("/sys/fs/cgroup")
#: A group without a limit says so by a number near 2^63.
_UNLIMITED = 1 << 60


def available() -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    The least of what the kernel counts as available, what the control group leaves (both versions),
    and what the limits on address space and data (``ulimit -v``, ``ulimit -d``) leave.
    """
    found = [left for left in (_machine(), _group(), _limits()) if left is not None]
    return max(0, min(found)) if found else None


def require(needed: float, what: str, lower: str) -> None:
    """Refuse work that needs more memory than there is.

    Args:
        needed: bytes, estimated.
        what: what needs it, as "worst case of K = 3,000, R = 1".
        lower: the option or argument to lower, as "--dimension".

    Raises:
        UserError: says how much is needed, how much there is and what to lower.
    """
    left = available()
    if left is not None and not needed <= left:
        raise UserError(
            f"{what} needs about {size(needed)} of memory, {size(left)} are available; lower {lower}"
        )


def size(count: float) -> str:
    """Bytes for people: "3.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.2g} {unit}"


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _group() -> int | None:
    """What the control groups above this process leave, their reclaimable caches counted as free."""
    left = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if not controllers:
            names = (_CGROUP, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUP / "memory"
            names = (
                root,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        root, limit_name, usage_name, cache_name = names
        folder = root / inside.lstrip("/")
        # Inside a container the path may be the host's; its own group is then the root.
        for group in dict.fromkeys((folder, *folder.parents, root)):
            if group.is_relative_to(root):
                left += _left_in(group, limit_name, usage_name, cache_name)
    return min(left) if left else None


def _left_in(group: Path, limit_name: str, usage_name: str, cache_name: str) -> list[int]:
    try:
        limit = int((group / limit_name).read_text())
        usage = int((group / usage_name).read_text())
        caches = [
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.split()[0] == cache_name
        ]
    except (OSError, ValueError, IndexError):
        return []
    return [limit - usage + sum(caches)] if limit < _UNLIMITED else []


def _limits() -> int | None:
    if sys.platform == "win32":
        return None
    left = []
    # Fields of /proc/self/statm in pages: the whole address space, and data with stack.
    for kind, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            try:
                pages = int(Path("/proc/self/statm").read_text().split()[field])
            except (OSError, ValueError, IndexError):
                pages = 0
            left.append(limit - pages * resource.getpagesize())
    return min(left) if left else None
