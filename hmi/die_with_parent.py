"""Run a command that the kernel kills when its parent ends, for whatever reason.

The script (`python -I -S die_with_parent.py PARENT_PID COMMAND...`) requests the signal and then executes the command
in its own process. A request between fork and exec would run Python in the forked child of a threaded parent, which can
deadlock. Only Linux has this request; elsewhere the command runs without it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["launcher"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; the request outlives exec


def launcher() -> tuple[str, ...]:
    """Return the prefix of a command that has to end with this process, or rather with the thread that starts it, which
    the kernel takes for the parent."""
    return sys.executable, "-I", "-S", os.path.realpath(__file__), str(os.getpid())


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        # KILL and not TERM: on TERM a worker would finish its shard first. The shard is requeued when its lease
        # expires.
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:
            sys.exit("the parent ended before this process began")
    try:
        os.execvp(command[0], command)  # noqa: S606 - replacing this process is its purpose
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
