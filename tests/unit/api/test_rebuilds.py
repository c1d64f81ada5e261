from __future__ import annotations

import pytest

from hmi.catalog import HitCounts, bases, domains, trees
from hmi.jobs import QueueName
from tests.apis import Api


def test_a_tree_is_shown_with_its_report_and_lookups(api: Api) -> None:
    with api.http() as http:
        unpublished = http.get("/v1/hmi/trees").json()["data"]
        assert [(each["base"], each["number"]) for each in unpublished] == [("tiny", None)]
        report = {"domains": {"general": {"entries": 40, "bytes": 500}}}
        with api.services.database.session() as session:
            base = bases.get_base(session, "tiny")
            number = trees.begin_build(session, base.id, 60)
            trees.publish(session, base.id, number, {"general": "2" * 64}, report)
            domain = domains.get_domain(session, "reviews")
            trees.record_hits(session, {(base.id, number, domain.id): HitCounts(lookups=10, hits=7)})
        tree = http.get("/v1/hmi/trees?base=tiny").json()["data"][0]
        assert (tree["number"], tree["report"]) == (number, report)
        assert tree["published_at"]
        assert {name: (each["parent"], each["entries"], each["bytes"]) for name, each in tree["domains"].items()} == {
            "general": (None, 40, 500),
            "reviews": ("general", 0, 0),
        }
        assert (tree["domains"]["reviews"]["lookups"], tree["domains"]["reviews"]["hits"]) == (10, 7)
        versions = http.get("/v1/hmi/trees/tiny/versions").json()["data"]
        assert [(each["number"], each["status"]) for each in versions] == [(number, "ready")]
        assert http.get("/v1/hmi/trees?base=unknown").status_code == 404
        assert http.get("/v1/hmi/trees/unknown/versions").status_code == 404


def test_a_rebuild_is_sent_to_the_workers(api: Api) -> None:
    with api.services.broker.connection_for_write() as connection:
        connection.SimpleQueue(QueueName.CONTROL.value).clear()  # a broker in memory is one for all tests
    with api.http() as http:
        answer = http.post("/v1/hmi/trees/tiny/rebuild")
        assert http.post("/v1/hmi/trees/unknown/rebuild").status_code == 404
    assert (answer.status_code, answer.json()) == (202, {"base": "tiny", "number": 1, "building": None})
    with api.services.broker.connection_for_read() as connection:
        message = connection.SimpleQueue(QueueName.CONTROL.value).get(timeout=5)
    assert message.headers["task"] == "hmi.rebuild_trees"
    assert message.payload[0] == ["tiny"]


def test_a_rebuild_is_recorded_when_the_broker_is_down(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*args: object, **options: object) -> None:
        raise ConnectionRefusedError("no broker")

    monkeypatch.setattr(type(api.services.broker), "send_task", down)
    with api.http() as http:
        answer = http.post("/v1/hmi/trees/tiny/rebuild")
        assert (answer.status_code, answer.json()["number"]) == (202, 1)
        assert http.get("/v1/hmi/trees/tiny").json()["requested"] == 1
