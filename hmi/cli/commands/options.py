"""Options that many commands share, and what they lead to: settings, a client, output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hmi.cli.client import HmiClient
    from hmi.schemas import ResponseModel
    from hmi.settings import Settings

__all__ = [
    "AsJson",
    "DataDir",
    "Key",
    "Seed",
    "Url",
    "connect",
    "console",
    "load_settings",
    "only_base",
    "print_answer",
    "print_table",
    "show",
]

_PIPE_COLUMNS = 160

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="HMI_API_URL", help="Address of the API. Default: of the `hmi up` that runs here."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="HMI_API_KEY", help="API key. Default: the admin key that `hmi up` keeps here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answered, for programs.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="HMI_DATA_DIR", help="Folder of the services' data.  [default: .hmi]"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="The same seed gives the same weights.")]


def load_settings() -> Settings:
    """From HMI_* variables and `.env`. Raises `InvalidInput` naming the variable that is wrong."""
    from pydantic import ValidationError

    from hmi.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"setting {f'HMI_{where}' if where else 'HMI_*'}: {first['msg']}") from error


def connect(url: str | None, key: str | None) -> HmiClient:
    """A client of the API at `url`, or of the one that `hmi up` runs in the data folder.

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
    """The base model that is meant: the one that is named, or the only one that has a tree.

    Raises `InvalidInput` where there are several or none.
    """
    if name is not None:
        return name
    found = [base.name for base in client.bases() if base.spec.get("k")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(f"which base model? there are {', '.join(found)}", param="base")
    raise InvalidInput("no base model looks anything up: none is registered with k > 0", param="base")


def console() -> Console:
    """Where people read. In a file or a pipe, lines are not broken at a terminal's width."""
    from rich.console import Console

    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fits else _PIPE_COLUMNS)


def print_answer(answer: ResponseModel | Sequence[ResponseModel]) -> None:
    """As JSON on stdout: an object, or a list of them."""
    listed = answer if isinstance(answer, Sequence) else [answer]
    data = [each.model_dump(mode="json") for each in listed]
    typer.echo(json.dumps(data if listed is answer else data[0], indent=1, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under headings, or the sentence `empty` where there are none."""
    from hmi.cli.render import table

    listed = list(rows)
    show(table(columns, listed) if listed else empty)


def show(what: RenderableType) -> None:
    console().print(what, soft_wrap=isinstance(what, str), markup=False)
