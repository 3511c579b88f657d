"""The allocator of the C library, beneath torch's tensors on a CPU."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers, see mallopt(3)
KEPT, LARGEST = 2**30, 2**25  # bytes; larger blocks stay apart, or pieces of their memory could become of no use


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next tensors; return whether it could be told. Elsewhere nothing changes.

    By itself it soon gives memory back to the kernel, which hands it out anew page by page, filled with zeros: a tenth
    of the time of a sweep. Now it keeps blocks of up to 32 MiB, and 1 GiB of them."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl and Windows have none
        return False
    return bool(set_option(MMAP_THRESHOLD, LARGEST) and set_option(TRIM_THRESHOLD, KEPT))
