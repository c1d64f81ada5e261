"""A process that rebuilds one base model's tree over `StubEngine` and ends: `python -m tests.builder base`."""

from __future__ import annotations

import sys

from hmi.catalog import Database
from hmi.settings import Settings
from tests.stub_engine import StubEngine
from worker.app import make_celery
from worker.runtime import Runtime
from worker.trees import rebuild


def main(base: str) -> None:
    settings = Settings()
    runtime = Runtime(
        settings,
        make_celery(settings),
        Database(settings.resolved_database_url),
        StubEngine,
        lambda device: "builder@here",
    )
    rebuild(runtime, base)
    runtime.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
