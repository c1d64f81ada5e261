"""hmi tree"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmi.cli.commands.files import read_lines
from hmi.cli.commands.options import AsJson, Key, Url, connect, follow, only_base, print_answer

if TYPE_CHECKING:
    from hmi.cli.client import HmiClient
    from hmi.schemas import RebuildRequested, TreeProgress, TreeVersionObject

app = typer.Typer(
    no_args_is_help=True,
    help="Knowledge trees: precomputed rows of n-grams, by domain. BASE may be left out if only one has a tree.",
)

_TEXTS_PER_REQUEST = 10_000

_Base = Annotated[str | None, typer.Argument(metavar="BASE", help="Name of the base model.")]
_BaseOption = Annotated[str | None, typer.Option("--base", "-b", help="Default: the only one that has a tree.")]


@app.command(name="show", epilog="Examples: `hmi tree show`, `hmi tree show minilm-k3 --domain movies`")
def show_(
    name: Annotated[str | None, typer.Argument(metavar="BASE|DOMAIN", help="Default: all.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", "-d", help="With its ancestors and descendants.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the published trees, one line per domain.

    *n-grams*, *aliases* and *bytes* are of the domain's own table; an alias stands for the ancestor's row. *hit* is
    the share of the domain's lookups that found a row and *pred.* the share that the build predicted. *own* is the
    share of the hits in the domain's own table; the other hits are in its ancestors' tables. *appr.* is the share of
    lookups under the policy backoff. *waiting* n-grams were left out, since too few tenants ask for them, and *unknown*
    ones, since it is not known who asked (`hmi tree declare-public`). *delta* is the digest of the domain's delta.
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
    print_answer(found, as_json, *(map(knowledge_tree, found) if found else ["no base models"]))


@app.command(epilog="Example: `hmi tree versions minilm-k3`")
def versions(base: _Base = None, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List a tree's versions with the figures of each build. A star is beside the version that serves.

    The figures are n-grams added, dropped and hoisted, rows copied and computed, bytes before and after, and the
    predicted and the actual hit rate.
    """
    from hmi.cli.render import versions_list

    with connect(url, key) as client:
        base = only_base(client, base)
        found = client.tree_versions(base)
    print_answer(found, as_json, versions_list(found) if found else f"{base} has no tree yet")


@app.command(epilog="Examples: `hmi tree top movies --limit 50`, `hmi tree top movies --after 0000180000a00007`")
def top(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain of the lookups.")],
    base: _BaseOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    after: Annotated[str | None, typer.Option(help="The last id of the previous list.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the n-grams that a domain looks up most, as text, with their counts and where the tree has them.

    Only those that enough tenants ask for, or that are public. Of a private domain, its owner sees all that it asked
    for, with its own key.

    Counts decay with time. `own row`: in the domain's own table; `inherited from`: in the table of an ancestor with the
    same delta; `alias of`: the domain's delta leaves the ancestor's row as it is, within the tolerance; `missing`: the
    row is computed, or estimated under backoff.
    """
    from hmi.cli.render import top_ngrams

    with connect(url, key) as client:
        page = client.top_ngrams(only_base(client, base), domain, limit=limit, after=after)
    more = [f"more: --after {page.last_id}"] if page.has_more else []
    print_answer(page, as_json, top_ngrams(page), *more)


@app.command(name="declare-public", epilog="Example: `hmi tree declare-public movies --base minilm-k3`")
def declare_public(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain of the lookups.")],
    base: _BaseOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let the tree hold n-grams of which it is not known who asked: those counted before this was recorded.

    Do so if the text was no secret. The tenants that may use the domain can find out what was asked there.
    """
    if not yes:
        typer.confirm(f"May every tenant that uses {domain} find out what was asked there before?", abort=True)
    with connect(url, key) as client:
        made = client.declare_public(only_base(client, base), domain)
    print_answer(made, as_json, f"{made.ngrams:,} n-grams of {domain} are public; the next rebuild may hold them")


@app.command(epilog="Example: `hmi tree diff 3 4`")
def diff(
    before: Annotated[int, typer.Argument(metavar="V1", min=1, help="Number of a version, see `hmi tree versions`.")],
    after: Annotated[int, typer.Argument(metavar="V2", min=1, help="Number of another.")],
    base: _BaseOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, max=100, help="N-grams of each kind to show.")] = 5,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions of a tree by domain, with the heaviest n-grams as text, if enough tenants ask for them.

    *added* and *dropped* n-grams are new to the domain or gone from it. *in* and *out* moved between a domain and an
    ancestor with the same delta; lookups still find them.
    """
    from hmi.cli.render import difference

    with connect(url, key) as client:
        found = client.tree_difference(only_base(client, base), before, after, limit=limit)
    print_answer(found, as_json, difference(found))


@app.command(epilog="Example: `hmi tree rebuild minilm-k3 --wait`")
def rebuild(
    base: _Base = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the new version is published.")] = False,
    timeout: Annotated[float, typer.Option(help="With --wait: give up after so many seconds.")] = 3600,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Build a new version from every count so far and publish it; the old one serves until then.

    A running build is followed by another one: the answer names the version that will contain the counts.
    """
    from hmi.cli.render import versions_list

    with connect(url, key) as client:
        requested = client.rebuild_tree(only_base(client, base))
        before = "" if requested.building is None else f", after tree {requested.building}, which is being built"
        typer.echo(f"tree {requested.number} of {requested.base} will contain every count so far{before}", err=as_json)
        made = _follow_build(client, requested, timeout) if wait else None
    if made is None:
        print_answer(requested, as_json)
    else:
        published = f"tree {made.number} of {requested.base} is published"
        print_answer(made, as_json, published, versions_list([made]))


def _follow_build(client: HmiClient, requested: RebuildRequested, timeout_seconds: float) -> TreeVersionObject:
    """Return the version that answers the request, or a later one, once it is published.

    A failed build is printed; the next one may answer the request. Raises `HmiError` (code `rebuild_failed`) if the
    request was closed without a version.
    """
    from hmi.cli.render import ProgressBar
    from hmi.errors import HmiError

    base, failed = requested.base, set[int]()

    def find_ready() -> tuple[TreeVersionObject | None, TreeProgress | None]:
        # In this order: the request is closed in the transaction that publishes its version.
        tree, versions = client.tree(base), client.tree_versions(base)
        newer = [each for each in versions if each.number >= requested.number]  # newest first
        ready = next((each for each in newer if each.status == "ready"), None)
        building = next((each for each in versions if each.status == "building"), None)
        if ready is None and tree.requested is None and building not in newer:
            reason = newer[0].error if newer else "the tree was rolled back, which closed the request"
            raise HmiError(f"the rebuild of {base}'s tree failed: {reason}", code="rebuild_failed")
        for each in reversed(newer):
            if each.status == "failed" and each.number not in failed:
                failed.add(each.number)
                typer.echo(f"tree {each.number} failed: {each.error}; another build follows", err=True)
        return ready, building.progress if building else None

    with ProgressBar("tree", "rows") as bar:
        ready, _ = follow(
            find_ready,
            is_over=lambda found: found[0] is not None,
            show_progress=lambda found: bar.show_build(found[1]),
            timeout_seconds=timeout_seconds,
            what=f"tree {requested.number} of {base}",
        )
    assert ready is not None  # noqa: S101 - what `is_over` says
    return ready


@app.command(epilog="Example: `hmi tree rollback minilm-k3 --to 3`")
def rollback(
    base: _Base = None,
    to: Annotated[int | None, typer.Option(min=1, help="A version that is kept. Default: the previous one.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Serve another kept version.

    A running build is stopped, an open request is closed, and no scheduled build starts until you request one.
    """
    with connect(url, key) as client:
        base = only_base(client, base)
        served = client.roll_back_tree(base, to)
    print_answer(served, as_json, f"tree {served.number} of {base} serves; `hmi tree rebuild {base}` builds on it")


@app.command(epilog="Example: `hmi tree count minilm-k3 movies reviews.txt && hmi tree rebuild minilm-k3`")
def count(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Name of the base model.")],
    domain: Annotated[str, typer.Argument(help="Domain of the text.")],
    file: Annotated[Path, typer.Argument(help="Text, one sentence a line.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count a text's n-grams, so that a tree can be built before there are requests."""
    lines = read_lines(file)
    with connect(url, key) as client:
        counted = [
            client.count_text(base, domain, lines[start : start + _TEXTS_PER_REQUEST])
            for start in range(0, len(lines), _TEXTS_PER_REQUEST)
        ]
    windows = sum(each.windows for each in counted)
    print_answer(counted, as_json, f"{len(lines):,} lines with {windows:,} windows were counted for {domain}")
