"""The most memory that this process has held."""

import resource
import sys
from pathlib import Path


def peak() -> int:
    """Peak resident set of this program in bytes.

    `ru_maxrss` of a child process begins at what its parent held, also when the child runs another
    program, so Linux is asked for the peak of the program itself.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024
