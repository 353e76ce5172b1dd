"""What this machine has: cores, memory, GPUs, as far as this process may use them.

Reads /proc and /sys/fs/cgroup; psutil only where these do not exist.
"""

from __future__ import annotations

import os

STORE_SHARE = 0.3
STORE_MIN_BYTES = 75 << 20
STORE_MAX_BYTES = 200 << 30


def count_cpus() -> int:
    """Cores that this process may run on at once: affinity and container quota, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(cores, int(quota))) if quota else cores


def count_gpus() -> int:
    """GPUs named by CUDA_VISIBLE_DEVICES, else NVIDIA devices that exist."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name for name in visible.split(",") if name.strip()]
        return 0 if names in (["-1"], ["NoDevFiles"]) else len(names)
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        return 0


def memory_bytes() -> int:
    """Physical memory, or the container's limit if that is lower."""
    total = _meminfo_total()
    limit = _first_number(
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    return min(total, limit) if limit else total


def default_store_bytes(memory: int) -> int:
    """How large the object store is if nobody says: 30 % of memory, between 75 MiB and 200 GiB.

    The store is a memfd: it takes memory page by page as it is written, and /dev/shm's size does
    not bound it.
    """
    return max(STORE_MIN_BYTES, min(int(memory * STORE_SHARE), STORE_MAX_BYTES)) & -4096


def _cpu_quota() -> float:
    """CPUs that the container's quota amounts to; 0 if there is none."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return 0 if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _first_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_us = _first_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota_us / period_us if quota_us > 0 and period_us > 0 else 0


def _meminfo_total() -> int:
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    import psutil

    return int(psutil.virtual_memory().total)


def _first_number(*paths: str) -> int:
    """The number in the first of these files that exists and holds one; 0 if none does."""
    for path in paths:
        try:
            with open(path) as file:
                return int(file.read())
        except (OSError, ValueError):
            continue
    return 0
