"""A worker process over `StubEngine`: everything of a worker but the model. Run by tests with `-m`."""

from __future__ import annotations

import os
import signal
import sys

from hmi.items import Item
from hmi.settings import Settings
from tests.stub_engine import StubEngine
from worker.lifecycle import configure_logs
from worker.process import run_worker

SECONDS_PER_ITEM = "STUB_SECONDS_PER_ITEM"
DEADLY_TEXT = "STUB_DEADLY_TEXT"  # an item with this text kills the process, as a fault in a kernel would


def main() -> int:
    settings = Settings()
    configure_logs(settings.log_level, as_json=False)
    seconds, deadly = float(os.environ.get(SECONDS_PER_ITEM, "0")), os.environ.get(DEADLY_TEXT)

    def watch(item: Item) -> None:
        if deadly is not None and item.text == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    return run_worker(
        settings,
        lambda source: StubEngine(source, seconds_per_item=seconds, watch=watch),
        name=lambda device: sys.argv[1],
    )


if __name__ == "__main__":
    sys.exit(main())
