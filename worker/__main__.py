"""`python -m worker run | beat | flower`; settings are read once, here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hmi.errors import InvalidInput
from hmi.process import tune_process
from hmi.settings import Settings
from worker.lifecycle import PinnedDevice, configure_logs, node_name, pin_device

if TYPE_CHECKING:
    from worker.runtime import InferenceEngine
    from worker.serving import CatalogSource


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(f"HMI_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        sys.stderr.write(f"hmi worker: settings cannot be used: {problems}\n")
        return 1
    configure_logs(settings.log_level, as_json=settings.log_json)
    if options.command == "run":
        return _run(settings, options.device or settings.device, options.name, options.queues)
    if options.command == "beat":
        return _beat(settings, options.schedule)
    return _flower(settings, options.address, options.port)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="The device side of HMI.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="serve shards on one device")
    run.add_argument("--device", help="auto, cpu or cuda:N (default: HMI_DEVICE)")
    run.add_argument("--name", help="node name (default: made of the device and the host)")
    run.add_argument("--queues", type=lambda text: text.split(","), help="comma-separated (default: all)")
    beat = commands.add_parser("beat", help="send the periodic tasks")
    beat.add_argument("--schedule", type=Path, help="file with the times of the last runs (default: in HMI_DATA_DIR)")
    flower = commands.add_parser("flower", help="show workers and tasks in a browser, read-only")
    flower.add_argument("--address", default="127.0.0.1")
    flower.add_argument("--port", type=int, default=5555)
    return parser.parse_args(arguments)


def _run(settings: Settings, device: str, name: str | None, queues: list[str] | None) -> int:
    try:
        pinned = pin_device(device, os.environ)
        tune_process(os.environ)
    except InvalidInput as error:
        sys.stderr.write(f"hmi worker: cannot start: {error.message}\n")
        return 1
    # Torch may be imported from here on.
    from hmi.jobs import QueueName  # noqa: PLC0415
    from hmi.knowledge.store import allow_maps  # noqa: PLC0415
    from worker.process import run_worker  # noqa: PLC0415

    allow_maps()
    return run_worker(
        settings,
        lambda source: _make_engine(settings, pinned, source),
        name=lambda resolved: node_name(name, pinned.label(resolved)),
        queues=queues or [queue.value for queue in QueueName],
    )


def _make_engine(settings: Settings, pinned: PinnedDevice, source: CatalogSource) -> InferenceEngine:
    from hmi.engine import Engine, EngineConfig  # noqa: PLC0415

    config = EngineConfig(
        device=pinned.engine,
        dtype=settings.dtype,
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
        batch_rows=settings.batch_rows,
        host_adapter_bytes=settings.host_adapter_bytes,
        device_adapter_bytes=settings.device_adapter_bytes,
        miss_cache_bytes=settings.miss_cache_bytes,
        cache_bytes=settings.key_value_bytes,
        generated_rows=settings.generated_rows,
        frequency_max_keys=settings.frequency_max_keys,
        frequency_total_keys=settings.frequency_total_keys,
    )
    return Engine(config, source)


def _beat(settings: Settings, schedule: Path | None) -> int:
    from worker.app import make_celery  # noqa: PLC0415

    path = schedule or settings.data_dir / "beat-schedule"
    path.parent.mkdir(parents=True, exist_ok=True)
    make_celery(settings).Beat(schedule=str(path), loglevel=settings.log_level.upper(), quiet=True).run()
    return 0


def _flower(settings: Settings, address: str, port: int) -> int:
    from worker.app import make_celery  # noqa: PLC0415

    arguments = ["flower", f"--address={address}", f"--port={port}", "--read_only=True", "--purge_offline_workers=60"]
    # Never on the command line, where every user of the machine could read it.
    if auth := os.environ.get("HMI_FLOWER_AUTH"):
        arguments.append(f"--basic_auth={auth}")
    try:
        return int(make_celery(settings).start(arguments) or 0)
    except OSError as error:
        sys.stderr.write(f"hmi flower: cannot listen on {address}:{port}: {error.strerror or error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
