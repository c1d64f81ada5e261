"""`python -m api`: the API as a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import uvicorn

from api.app import create_app
from hmi.errors import HmiError
from hmi.knowledge.store import allow_maps
from hmi.logs import configure_logs
from hmi.settings import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve HMI's API. Settings come from HMI_*.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    options = parser.parse_args(arguments)
    settings = Settings()
    configure_logs(settings.log_level, as_json=settings.log_json)
    allow_maps()
    app = create_app(settings)
    try:
        app.state.services.prepare()  # as the application's start does, which fails with a traceback
    except HmiError as error:
        sys.exit(f"cannot start the API: {error.message}")
    # The middleware logs each request; uvicorn's access log would be a second line.
    uvicorn.run(app, host=options.host, port=options.port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main()
