"""The command `simmim`."""

import signal
import sys

from . import _simmim


def main() -> int:
    """Runs the command with the arguments of this process; returns the exit code."""
    # Python's own handler waits for Python code to run. As in any program, Ctrl-C ends the command where nothing else is said,
    # and a signal that was ignored at the start stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _simmim.main(["simmim", *sys.argv[1:]])
