"""Fixtures of all end-to-end tests."""

from __future__ import annotations

import signal

# A job started in the background of a script is born deaf to Ctrl-C, and so would be every service that a test
# starts and interrupts. Children of a process that handles the signal get the default back.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
