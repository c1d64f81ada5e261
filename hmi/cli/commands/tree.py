"""hmi tree"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmi.cli.commands import ngrams
from hmi.cli.commands.options import AsJson, Key, Url, connect, only_base, print_answer, show

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Knowledge trees: precomputed rows of n-grams, by domain. BASE may be left out where only one has a tree.",
)
ngrams.add_to(app)

_TEXTS_A_REQUEST = 10_000

_Base = Annotated[str | None, typer.Argument(metavar="BASE", help="Name of the base model.")]


@app.command(name="show", epilog="Examples: `hmi tree show`, `hmi tree show minilm-k3 --domain movies`")
def show_(
    name: Annotated[
        str | None, typer.Argument(metavar="BASE|DOMAIN", help="Default: all base models, all domains.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", "-d", help="Only this one, its ancestors and all that is under it.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Draw the published trees, a domain a line.

    *n-grams*, *aliases* and *bytes* are of the domain's own table; an alias stands for "as my ancestor's row". *hit* is
    the share of the domain's lookups that found a row, *pred.* what the build expected; *own* is the share of the hits
    that its own table answered, ancestors the rest; *appr.* the share of lookups that ran under the policy backoff.
    *delta* is the domain's own version of the lower layers.
    """
    from hmi.cli.render import knowledge_tree, related
    from hmi.errors import NotFound

    with connect(url, key) as client:
        found = client.trees()
    if name is not None and any(each.base == name for each in found):
        found = [each for each in found if each.base == name]
    elif name is not None and domain is None and any(name in each.domains for each in found):
        domain = name
    elif name is not None:
        raise NotFound(f"there is no base model {name!r}" + ("" if domain else ", and no domain of that name"))
    if domain is not None:
        if found and not any(domain in each.domains for each in found):
            raise NotFound(f"there is no domain {domain!r}")
        found = [related(each, domain) for each in found]
    if as_json:
        print_answer(found)
        return
    for each in found:
        show(knowledge_tree(each))
    if not found:
        show("no base models")


@app.command(epilog="Example: `hmi tree versions minilm-k3`")
def versions(base: _Base = None, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List a tree's versions with what each build did: n-grams added, dropped and hoisted, rows copied and computed,
    bytes before and after, the hit rate that was predicted and the real one. A star marks the version that serves."""
    from hmi.cli.render import versions_list

    with connect(url, key) as client:
        base = only_base(client, base)
        found = client.tree_versions(base)
    if as_json:
        print_answer(found)
    else:
        show(versions_list(found) if found else f"{base} has no tree yet")


@app.command(epilog="Example: `hmi tree rebuild minilm-k3 --wait`")
def rebuild(
    base: _Base = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the new version is published.")] = False,
    timeout: Annotated[float, typer.Option(help="With --wait: give up after so many seconds.")] = 3600,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Build a new version from every count so far, and publish it; the old one serves until then.

    A build that runs already is followed by another one: the answer says which version will contain the counts.
    """
    from hmi.cli.commands.rebuild_progress import follow

    with connect(url, key) as client:
        base = only_base(client, base)
        requested = client.rebuild_tree(base)
        before = "" if requested.building is None else f", after tree {requested.building}, which is being built"
        typer.echo(f"tree {requested.number} of {base} will contain every count so far{before}", err=as_json)
        made = follow(client, requested, timeout) if wait else None
    if as_json:
        print_answer(made or requested)
    elif made is not None:
        from hmi.cli.render import versions_list

        typer.echo(f"tree {made.number} of {base} is published")
        show(versions_list([made]))


@app.command(epilog="Example: `hmi tree rollback minilm-k3 --to 3`")
def rollback(
    base: _Base = None,
    to: Annotated[int | None, typer.Option(min=1, help="A version that is kept. Default: the one before.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Serve another version that is kept. A build that runs is given up; an open
    rebuild request is closed, and the schedule builds none until you request one."""
    with connect(url, key) as client:
        base = only_base(client, base)
        served = client.roll_back_tree(base, to)
    if as_json:
        print_answer(served)
    else:
        typer.echo(f"tree {served.number} of {base} serves; `hmi tree rebuild {base}` goes on from it")


@app.command(epilog="Example: `hmi tree count minilm-k3 movies reviews.txt && hmi tree rebuild minilm-k3`")
def count(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")],
    domain: Annotated[str, typer.Argument(help="Domain that the text is of.")],
    file: Annotated[Path, typer.Argument(help="Text, one sentence a line.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count a text's n-grams, so that a tree can be built before there is traffic."""
    from hmi.cli.commands.text_files import read_lines

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
