"""All services of one HMI on one machine, as supervised processes.

    with Services(settings, Path(".hmi")) as services:
        ...  # services.api_url answers, a worker has reported

Entering starts redis (unless a broker is set), brings the catalog's schema up to date, starts the API, a worker, beat
and Flower, and waits until each is ready; an error on the way stops all that were started. Leaving stops them so that
none needs one that has stopped: API, beat, worker, Flower, redis.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

import httpx
from pydantic import SecretStr

from hmi.catalog import mint_key, upgrade_schema
from hmi.cli.client import DataFolder, HmiClient, Running
from hmi.cli.local.ports import choose_ports
from hmi.cli.local.processes import Processes, ProcessSpec, ServiceEvent, ServiceState, tail
from hmi.cli.local.redis import EmbeddedRedis, find_server, socket_folder
from hmi.cli.local.services import ServicePlan, base_environment
from hmi.cli.local.signals import ending_signals_leave_the_block, signals_hurry
from hmi.errors import HmiError, InvalidInput, StorageFull, Transient
from hmi.settings import Settings

_STOP_ORDER: Final = ("api", "beat", "worker", "flower", "redis")
_FLOWER_USER: Final = "hmi"
_POLL_SECONDS: Final = 0.1
_READY_SECONDS: Final = 180.0  # all services together, until each is ready


class Services:
    """Start, watch and stop; see the module's docstring.

    Args:
        settings: Of all processes. A `broker_url` or `database_url` that is set (by HMI_BROKER_URL,
            HMI_DATABASE_URL or in code) is used, and nothing is started for it.
        data_dir: Created if missing, closed to other users and locked against a second instance. Its keys and
            passwords are generated once and kept for the next run.
        device: Of the worker: `auto`, `cpu`, `cuda:0`.
        port, flower_port: 0 takes any free one; without a `flower_port` Flower is not started.
        on_event: Called with every change of a service, from any thread.

    In the block, SIGTERM and SIGHUP raise `SystemExit`, as Ctrl-C raises `KeyboardInterrupt`. A signal while services
    are being stopped kills the rest of them at once.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        device: str = "auto",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        flower_port: int | None = 0,
        on_event: Callable[[ServiceEvent], None] = lambda event: None,
    ) -> None:
        self._settings = settings
        self._folder = DataFolder(data_dir)
        self.data_dir = self._folder.path
        self._device = device
        self._host = host
        self._wanted_ports = [("the API", port)] + ([("Flower", flower_port)] if flower_port is not None else [])
        self._on_event = on_event
        self._stack = contextlib.ExitStack()
        self._processes: Processes | None = None
        self._logs: dict[str, Path] = {}
        self._ports: list[int] = []
        self.admin_key = ""
        self._flower_password = ""

    @property
    def api_url(self) -> str:
        return f"http://{_reachable(self._host)}:{self._ports[0]}"

    @property
    def docs_url(self) -> str:
        return f"{self.api_url}/docs"

    @property
    def flower_url(self) -> str | None:
        """None without Flower."""
        return f"http://{_reachable(self._host)}:{self._ports[1]}" if len(self._ports) > 1 else None

    @property
    def flower_auth(self) -> tuple[str, str]:
        """User and password."""
        return _FLOWER_USER, self._flower_password

    def pid(self, service: str) -> int | None:
        """Process id of a service (`api`, `worker`, `beat`, `flower`, `redis`), None while it is down."""
        return self._processes.pid(service) if self._processes else None

    def check(self) -> None:
        """Raise `HmiError` naming a service that is down for good, with the end of its log.

        A service that ends is restarted with growing pauses. After three ends in a row it counts as down, although
        it is still restarted.
        """
        if self._processes:
            self._processes.check()

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as error:
            self._stack.close()
            kind = StorageFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else InvalidInput
            raise kind(f"data folder {self.data_dir} cannot be used: {error}") from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        self._folder.prepare()
        self._stack.enter_context(self._folder.locked())
        self._ports = choose_ports(self._host, self._wanted_ports)
        given = self._settings.admin_key
        self.admin_key = (
            given.get_secret_value() if given else self._folder.secret("admin.key", lambda: mint_key().plaintext)
        )
        self._flower_password = self._folder.secret("flower.password", lambda: secrets.token_urlsafe(18))
        settings = self._settings.model_copy(update={"data_dir": self.data_dir})
        # Before the stop is registered, since its socket must exist until the last service has stopped.
        broker = self._embedded_broker() if "broker_url" not in settings.model_fields_set else None
        processes = self._processes = Processes(self._on_event)
        self._stack.enter_context(ending_signals_leave_the_block())
        self._stack.callback(self._stop, processes)

        if broker:
            self._launch(processes, broker.process(base_environment(), self._folder.log("redis")))
            self._wait(processes, {"redis": broker.is_ready}, deadline)
            settings = settings.model_copy(update={"broker_url": SecretStr(broker.url)})
        upgrade_schema(settings.resolved_database_url)
        self._start_services(processes, settings, deadline)
        self._stack.enter_context(self._folder.announced(Running(os.getpid(), self.api_url, self.flower_url)))
        processes.keep_alive()

    def _embedded_broker(self) -> EmbeddedRedis:
        return EmbeddedRedis(
            server=find_server(),
            folder=self.data_dir / "redis",
            sockets=self._stack.enter_context(socket_folder(self.data_dir)),
            password=self._folder.secret("redis.password", lambda: secrets.token_hex(24)),
        )

    def _start_services(self, processes: Processes, settings: Settings, deadline: float) -> None:
        flower_port = self._ports[1] if len(self._ports) > 1 else None
        plan = ServicePlan(
            settings=settings,
            folder=self._folder,
            host=self._host,
            api_port=self._ports[0],
            flower_port=flower_port,
            device=self._device,
            admin_key=self.admin_key,
            flower_auth=":".join(self.flower_auth),
        )
        for spec in (plan.api(), plan.worker(), plan.beat(), *([plan.flower()] if flower_port else [])):
            self._launch(processes, spec)
        with HmiClient(self.api_url, self.admin_key, timeout_seconds=5) as client:
            probes: dict[str, Callable[[], bool]] = {
                "api": lambda: _api_is_ready(client),
                "worker": lambda: processes.pid("worker") in {node.pid for node in client.nodes()},
                "beat": lambda: processes.pid("beat") is not None,
            }
            if url := self.flower_url:
                probes["flower"] = lambda: _flower_is_ready(url, self.flower_auth)
            self._wait(processes, probes, deadline)

    def _launch(self, processes: Processes, spec: ProcessSpec) -> None:
        self._logs[spec.name] = spec.log
        processes.start(spec)

    def _wait(self, processes: Processes, probes: Mapping[str, Callable[[], bool]], deadline: float) -> None:
        """Wait until every probe has succeeded once. Raises `HmiError` if a process died or time is up."""
        addresses = {"api": self.api_url, "flower": self.flower_url or ""}
        pending, reason = dict(probes), ""
        while pending:
            processes.check()
            for name, is_ready in list(pending.items()):
                try:
                    ready = is_ready()
                except Transient as error:
                    ready, reason = False, f" ({error.message})"
                if ready:
                    del pending[name]
                    self._on_event(ServiceEvent(name, ServiceState.READY, addresses.get(name, "")))
            if pending and time.monotonic() > deadline:
                name = next(iter(pending))
                raise HmiError(
                    f"{name} was not ready after {_READY_SECONDS:g} s{reason}; "
                    f"the end of {self._logs[name]}:\n{tail(self._logs[name])}",
                    code="service_not_ready",
                )
            time.sleep(_POLL_SECONDS)

    def _stop(self, processes: Processes) -> None:
        with signals_hurry(processes.hurry):
            processes.stop(_STOP_ORDER)


def _reachable(host: str) -> str:
    """The host of a URL that reaches a listener on `host` from this machine."""
    if host in {"0.0.0.0", ""}:  # noqa: S104 - read, not listened on
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _api_is_ready(client: HmiClient) -> bool:
    client.check_ready()
    return True


def _flower_is_ready(url: str, auth: tuple[str, str]) -> bool:
    try:
        # trust_env: past any proxy that the environment names.
        return httpx.get(url, auth=auth, timeout=5, follow_redirects=True, trust_env=False).is_success
    except httpx.HTTPError:
        return False
