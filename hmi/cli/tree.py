"""hmi tree"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.options import AsJson, Key, Url, connect, print_answer, print_table, show

if TYPE_CHECKING:
    from hmi.cli.client import HmiClient

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Knowledge trees: precomputed rows of n-grams, by domain.")

_POLL_SECONDS = 0.5
_TEXTS_A_REQUEST = 10_000

_Base = Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")]


@app.command(name="show", epilog="Example: `hmi tree show minilm-k2`")
def show_(
    base: Annotated[str | None, typer.Argument(metavar="[BASE]", help="Default: all base models.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Draw the published trees: entries, bytes and hit rate of each domain."""
    from hmi.cli.draw import knowledge_tree

    with connect(url, key) as client:
        found = client.trees(base)
    if as_json:
        print_answer(found)
        return
    for each in found:
        show(knowledge_tree(each))
    if not found:
        show("no base models")


@app.command(epilog="Example: `hmi tree rebuild minilm-k2 --wait`")
def rebuild(
    base: _Base,
    wait: Annotated[bool, typer.Option("--wait", help="Until the new version is published.")] = False,
    timeout: Annotated[float, typer.Option(help="With --wait: give up after so many seconds.")] = 3600,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Build a new version from what was asked for, and publish it; the old one serves until then."""
    with connect(url, key) as client:
        last = max((each.number for each in client.tree_versions(base)), default=0)
        asked = client.rebuild_tree(base)
        if wait:
            _wait(client, base, last, timeout)
    if as_json:
        print_answer(asked)
    else:
        typer.echo(f"a new tree of {base} is published" if wait else f"a rebuild of {base}'s tree was asked for")


@app.command(epilog="Example: `hmi tree versions minilm-k2`")
def versions(base: _Base, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the versions of a tree."""
    from hmi.cli.draw import moment

    with connect(url, key) as client:
        found = client.tree_versions(base)
    if as_json:
        print_answer(found)
        return
    rows = (
        (each.number, each.status, moment(each.created_at), moment(each.published_at), each.error) for each in found
    )
    print_table(("version", "status", "created", "published", "error"), rows, empty=f"{base} has no tree yet")


@app.command(epilog="Example: `hmi tree count minilm-k2 movies reviews.txt && hmi tree rebuild minilm-k2`")
def count(
    base: _Base,
    domain: Annotated[str, typer.Argument(help="Domain that the text is of.")],
    file: Annotated[Path, typer.Argument(help="Text, one sentence a line.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count a text's n-grams, so that a tree can be built before there is traffic."""
    from hmi.cli.textfiles import read_lines

    lines = read_lines(file)
    with connect(url, key) as client:
        counted = [
            client.count_text(base, domain, lines[start : start + _TEXTS_A_REQUEST])
            for start in range(0, len(lines), _TEXTS_A_REQUEST)
        ]
    if as_json:
        print_answer(counted)
    else:
        windows = sum(each.windows for each in counted)
        typer.echo(f"{len(lines):,} lines with {windows:,} windows were counted for {domain}")


def _wait(client: HmiClient, base: str, last: int, timeout_seconds: float) -> None:
    """Until a version above `last` is there and has ended. Raises `HmiError` where it failed."""
    from hmi.errors import HmiError, Transient

    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        newer = [each for each in client.tree_versions(base) if each.number > last and each.status != "building"]
        if newer:
            newest = max(newer, key=lambda each: each.number)
            if newest.status == "ready":
                return
            raise HmiError(f"the rebuild of {base}'s tree failed: {newest.error}", code="rebuild_failed")
        time.sleep(_POLL_SECONDS)
    raise Transient(f"no new tree of {base} was published within {timeout_seconds:g} s")
