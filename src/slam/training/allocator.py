"""What becomes of memory that a step frees, on the CPU."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_memory() -> bool:
    """Freed memory stays with this process from now on; whether that could be arranged (glibc alone).

    A step allocates and frees every activation. glibc gives large pieces back to the kernel at once, which hands out
    zeroed pages again at the next step: 10,000 page faults a step of the tiny profile, about 8% of its time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20}
    answers = [mallopt(option, value) for option, value in wanted.items()]  # 1 or 0
    return all(answers)
