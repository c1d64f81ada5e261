"""hmi tree top, hmi tree diff"""

from __future__ import annotations

from typing import Annotated

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, only_base, print_answer, show

__all__ = ["add_to"]

_Base = Annotated[
    str | None, typer.Option("--base", "-b", help="Base model. May be left out where one alone has a tree.")
]


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Examples: `hmi tree top movies --limit 50`, `hmi tree top movies --after 0000180000a00007`")(
        top
    )
    app.command(epilog="Example: `hmi tree diff 3 4`")(diff)


def top(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Whose lookups were counted.")],
    base: _Base = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Those that follow this one: the id that the last list ended on.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the n-grams that a domain is asked for most, as text, with their counts and where the tree has them.

    Counts fade with time. `own row`: the domain's own table has it; `inherited from`: an ancestor's of the same
    function; `alias: as`: an ancestor's row that the domain's delta leaves as it is, within the tolerance; `missing`:
    it is computed, or under backoff a shorter n-gram's row is taken.
    """
    from hmi.cli.render import top_ngrams

    with connect(url, key) as client:
        page = client.top_ngrams(only_base(client, base), domain, limit=limit, after=after)
    if as_json:
        print_answer(page)
        return
    show(top_ngrams(page))
    if page.has_more:
        typer.echo(f"more: --after {page.last_id}")


def diff(
    before: Annotated[int, typer.Argument(metavar="V1", min=1, help="Number of a version, see `hmi tree versions`.")],
    after: Annotated[int, typer.Argument(metavar="V2", min=1, help="Number of another.")],
    base: _Base = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, max=100, help="N-grams of each kind to show.")] = 5,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say what two versions of a tree hold differently, domain by domain, with the heaviest n-grams as text.

    *added* and *dropped* are new to the domain or gone from it; *in* and *out* came from or went to a descendant or
    an ancestor of the same function, so that lookups find them as before.
    """
    from hmi.cli.render import difference

    with connect(url, key) as client:
        found = client.tree_difference(only_base(client, base), before, after, limit=limit)
    if as_json:
        print_answer(found)
    else:
        show(difference(found))
