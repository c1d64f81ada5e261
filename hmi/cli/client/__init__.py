"""What every command needs of a running HMI: `HmiClient`, which calls the API over HTTP and returns `hmi.schemas`, and
`DataFolder`, where `hmi up` keeps secrets, logs and the addresses of its services. Start at `client`.
"""

from __future__ import annotations

from hmi.cli.client.client import HmiClient
from hmi.cli.client.datafolder import DataFolder, Running

__all__ = ["DataFolder", "HmiClient", "Running"]
