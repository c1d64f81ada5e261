"""Options that many commands share, and what they lead to: settings, a client, waiting, output."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from hmi.errors import HmiError, InvalidInput, Transient

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hmi.cli.client import HmiClient
    from hmi.schemas import ResponseModel
    from hmi.settings import Settings

_T = TypeVar("_T")

_PIPE_COLUMNS = 160
_POLL_SECONDS = 0.5
_OUTAGE_SECONDS = 60  # an API that is restarted is back sooner

Url = Annotated[str | None, typer.Option(envvar="HMI_API_URL", help="Address of the API. Default: `hmi up` here.")]
Key = Annotated[
    str | None, typer.Option(envvar="HMI_API_KEY", help="API key. Default: the admin key of `hmi up` here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DataDir = Annotated[Path | None, typer.Option(envvar="HMI_DATA_DIR", help="Folder of the data.  [default: .hmi]")]
Device = Annotated[str, typer.Option(help="Device to compute on: cpu, cuda:0.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts in one step.")]
LearningRate = Annotated[float, typer.Option(help="Peak of the learning rate, which then falls to zero.")]
TextField = Annotated[str, typer.Option(help="Field or column of the text.")]
LabelField = Annotated[str, typer.Option(help="Field or column of the label.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same weights.")]


def load_settings() -> Settings:
    """Read HMI_* variables and `.env`. Raises `InvalidInput` naming the variable that is wrong."""
    from pydantic import ValidationError

    from hmi.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"setting {f'HMI_{where}' if where else 'HMI_*'}: {first['msg']}") from error


def connect(url: str | None, key: str | None) -> HmiClient:
    """Return a client of the API at `url`, by default of the one that `hmi up` runs in the data folder.

    The folder's admin key is sent to the folder's own API alone, never to an address given by hand.
    """
    from hmi.cli.client import DataFolder, HmiClient

    folder = DataFolder(load_settings().data_dir)
    running = folder.find_running()
    own = running.api_url if running else None
    if url is None and own is None:
        raise InvalidInput(f"no services run in {folder.path}: start them with `hmi up`, or give --url (HMI_API_URL)")
    address = url or own or ""
    if key is None and address.rstrip("/") == own:
        key = folder.find_admin_key()
    if key is None:
        raise InvalidInput(f"which key for {address}? give --key (HMI_API_KEY)")
    return HmiClient(address, key)


def only_base(client: HmiClient, name: str | None) -> str:
    """Return `name`, or without one the name of the only base model that has a tree.

    Raises `InvalidInput` if there are several or none.
    """
    if name is not None:
        return name
    found = [base.name for base in client.bases() if base.spec.get("k")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(f"which base model? there are {', '.join(found)}", param="base")
    raise InvalidInput("no base model has a tree: none is registered with k > 0", param="base")


def follow(
    fetch: Callable[[], _T],
    is_over: Callable[[_T], bool],
    show_progress: Callable[[_T], None],
    *,
    timeout_seconds: float | None = None,
    what: str = "the job",
) -> _T:
    """Fetch the state of a job twice a second, show it, and return it once the job is over.

    An API that does not answer for up to a minute is tried again. Raises `Transient` after `timeout_seconds`.
    """
    begun = answered = time.monotonic()
    while timeout_seconds is None or time.monotonic() - begun < timeout_seconds:
        try:
            state = fetch()
            answered = time.monotonic()
        except HmiError as error:
            if not error.retryable or time.monotonic() - answered > _OUTAGE_SECONDS:
                raise
        else:
            show_progress(state)
            if is_over(state):
                return state
        time.sleep(_POLL_SECONDS)
    raise Transient(f"{what} was not ready within {timeout_seconds:g} s; does a worker run?")


def print_answer(answer: ResponseModel | Sequence[ResponseModel], as_json: bool, *drawn: RenderableType) -> None:
    """Print one answer as a JSON object and several as a list, or `drawn` for people."""
    if not as_json:
        for each in drawn:
            show(each)
        return
    listed = answer if isinstance(answer, Sequence) else [answer]
    data = [each.model_dump(mode="json") for each in listed]
    typer.echo(json.dumps(data if listed is answer else data[0], indent=1, ensure_ascii=False))


def print_table(
    found: Sequence[ResponseModel], as_json: bool, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str
) -> None:
    """Print a list as JSON, or for people a table with a row for each, or the sentence `empty`."""
    from hmi.cli.render import table

    print_answer(found, as_json, table(columns, rows) if found else empty)


def show(drawn: RenderableType) -> None:
    """Print to standard output. In a file or a pipe, lines are not broken at a terminal's width."""
    from rich.console import Console

    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False, width=None if fits else _PIPE_COLUMNS)
    console.print(drawn, soft_wrap=isinstance(drawn, str), markup=False)
