"""hmi status"""

from __future__ import annotations

import json

import typer

from hmi.cli.commands.options import AsJson, Key, Url, connect, show

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: `hmi status --json`")(status)


def status(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the workers, where adapters lie in them, how the trees are hit, and the batches that are not over."""
    from hmi.cli.render import batch_table, knowledge_tree, residency, workload

    with connect(url, key) as client:
        client.check_ready()
        nodes, trees = client.nodes(), client.trees()
        waiting = [each for each in client.batches(limit=100) if not each.is_over]
    if as_json:
        data = {
            "nodes": [each.model_dump(mode="json") for each in nodes],
            "trees": [each.model_dump(mode="json") for each in trees],
            "batches": [each.model_dump(mode="json") for each in waiting],
        }
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
        return
    if not nodes:
        show("no worker has reported")
    else:
        show(workload(nodes))
        show(residency(nodes))
    for each in trees:
        show(knowledge_tree(each))
    show(batch_table(waiting) if waiting else "no batch of this key's tenant is waiting or running")
