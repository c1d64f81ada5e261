from __future__ import annotations

from hmi.catalog import nodes
from tests.apis import Api


def test_nodes_are_listed_while_they_report(api: Api) -> None:
    stats = {"device": "cpu", "host": {"bytes": 7}}
    with api.services.database.session() as session:
        nodes.report_node(session, "hmi-cpu@here", device="cpu", pid=7, stats=stats)
    with api.http() as http:
        found = http.get("/v1/hmi/nodes").json()["data"]
    assert [(each["name"], each["device"], each["pid"], each["stats"]) for each in found] == [
        ("hmi-cpu@here", "cpu", 7, stats)
    ]
