"""The demonstration as one call: services, a story, figures."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from rich.console import Console

from examples.demo.chat import ChatFigures, ChatStory
from examples.demo.classify import ClassifyStory, read_text
from examples.demo.figures import DemoFigures
from examples.demo.steps import Interrupts, Steps
from examples.demo.tenants import FULL, QUICK
from hmi.cli.local import ServiceEvent, Services, ServiceState
from hmi.settings import Settings

__all__ = ["run_demo"]

_FIGURES = "demo.json"  # in the data folder
_SETTINGS = {
    "flush_seconds": 2,  # lookups are counted seconds after they were made
    "rebuild_seconds": 30 * 86_400,  # the story rebuilds the tree; the schedule does not
}
_QUICK_SHARD_LINES = 64  # so that a small batch has several shards too


def run_demo(
    console: Console,
    settings: Settings,
    data_dir: Path,
    device: str,
    *,
    decoder: bool = False,
    quick: bool = False,
    keep: bool = False,
) -> DemoFigures | ChatFigures:
    """Run the demonstration and return its figures. Raises `HmiError` if a step fails.

    Args:
        data_dir: A second run reuses what the first one left here.
        decoder: Tenants of a language model instead of classifiers.
        quick: Fewer tenants and sentences.
        keep: Leave the services running until Ctrl-C.
    """
    steps = Steps(console)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmi"
    scale = QUICK if quick else FULL
    text = None if decoder else read_text(steps, cache, scale)
    adapted = settings.model_copy(update=_SETTINGS | ({"shard_lines": _QUICK_SHARD_LINES} if quick else {}))

    def on_event(event: ServiceEvent) -> None:
        if event.state is ServiceState.READY:
            steps.say(f"{event.service} is ready")

    with contextlib.ExitStack() as stack:
        with steps.step("Services: redis, API, worker, beat, Flower"):
            with steps.progress("starting"):
                services = stack.enter_context(Services(adapted, data_dir, device, on_event=on_event))
            _print_addresses(steps, services)
        steps.check = services.check
        figures: DemoFigures | ChatFigures
        with Interrupts():
            if text is None:
                figures = ChatStory(services, steps, cache, device, quick=quick).run()
            else:
                figures = ClassifyStory(services, steps, text, scale, device).run()
        path = services.data_dir / _FIGURES
        path.write_text(json.dumps(figures.to_dict(), indent=1))
        console.print(f"\nDone in {figures.seconds:.0f} s. The figures are in {path}.", soft_wrap=True)
        if keep:
            _print_addresses(steps, services)
            steps.say(f"admin key: {services.admin_key}")
            steps.say("Ctrl-C stops everything.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            console.print(f"To look around: hmi demo --keep, or hmi up --data-dir {services.data_dir}", soft_wrap=True)
    return figures


def _print_addresses(steps: Steps, services: Services) -> None:
    user, password = services.flower_auth
    steps.say(f"API     {services.api_url}/v1, reference {services.docs_url}")
    steps.say(f"Flower  {services.flower_url} (user {user}, password {password})")
    steps.say(f"logs    {services.data_dir / 'logs'}")
