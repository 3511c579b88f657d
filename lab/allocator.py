"""The allocator of the C library, beneath torch's tensors on a CPU."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers, see mallopt(3)
GIB = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next tensors; return whether it could be told. Elsewhere nothing changes.

    By itself it gives large blocks back to the kernel, which hands them out anew page by page, filled with zeros: an
    eighth of the time of a sweep. The process then holds until its end what it needed at its peak."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl and Windows have none
        return False
    return bool(set_option(TRIM_THRESHOLD, GIB) and set_option(MMAP_THRESHOLD, GIB))
