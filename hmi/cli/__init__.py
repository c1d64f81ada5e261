"""The `hmi` command.

Start with `main`; `commands` has a module for each subject, `render` the terminal output, `client` the API over HTTP,
and `local` the services that `hmi up` runs on this machine.
"""

from __future__ import annotations

__all__: list[str] = []
