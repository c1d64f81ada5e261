from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

from hmi.catalog import NgramCounts, bases, frequencies
from hmi.knowledge import pack
from tests.apis import SPEC, Api, base_files


def as_parts(files: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, data)) for name, data in files.items()]


def test_domains_are_made_under_their_parents(api: Api) -> None:
    with api.http() as http:
        assert http.post("/v1/hmi/domains", json={"name": "movies", "parent": "reviews"}).json()["parent"] == "reviews"
        assert http.post("/v1/hmi/domains", json={"name": "movies"}).status_code == 409
        assert http.post("/v1/hmi/domains", json={"name": "x", "parent": "unknown"}).status_code == 404
        found = {each["name"]: each["parent"] for each in http.get("/v1/hmi/domains").json()["data"]}
    assert found == {"general": None, "reviews": "general", "movies": "reviews"}


def test_texts_are_counted_as_the_engine_would_see_them(api: Api) -> None:
    with api.http() as http:
        assert http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).status_code == 200
        body = {"base": "mini", "domain": "reviews", "texts": ["w0 w1", "w0 w1", "w2 " * 100]}
        counted = http.post("/v1/hmi/frequencies", json=body).json()
    assert (counted["texts"], counted["windows"]) == (3, 4 + 4 + SPEC.max_positions)
    with api.services.database.session() as session:
        base = bases.get_base(session, "mini")
    found = frequencies.load(api.services.database, base.id)["reviews"]
    w0_window = pack(np.array([2]), np.array([4]), np.array([5]))[0]
    assert found.weights[found.ngrams == w0_window] == pytest.approx(2, rel=1e-3)
    assert len(found.ngrams) == counted["ngrams"]


def test_others_may_write_in_between_when_many_ngrams_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    add = frequencies.add

    def watch(session: Session, parts: list[NgramCounts], **options: Any) -> None:
        sizes.append((session, np.size(parts[0].ngrams)))
        add(session, parts, **options)

    monkeypatch.setattr("hmi.catalog.trees.frequencies.add", watch)
    monkeypatch.setattr("hmi.catalog.ChunkedTransactions.rows", 2)
    with api.http() as http:
        http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files()))
        body = {"base": "mini", "domain": "reviews", "texts": ["w0 w1 w2"]}
        counted = http.post("/v1/hmi/frequencies", json=body).json()
    assert counted["ngrams"] == 5
    assert [size for _, size in sizes] == [2, 2, 1]
    assert len({id(session) for session, _ in sizes}) == 3  # each commits on its own
    with api.services.database.session() as session:
        base = bases.get_base(session, "mini")
    assert len(frequencies.load(api.services.database, base.id)["reviews"].ngrams) == 5


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"base": "unknown"}, 404),
        ({"domain": "unknown"}, 404),
        ({"texts": []}, 400),
        ({"texts": [""]}, 400),
        ({"texts": ["\ud800"]}, 400),
        ({"base": "\ud800"}, 400),
        ({"domain": "\ud800"}, 400),
        ({"texts": "text"}, 400),
        ({"base": "flat"}, 400),
    ],
)
def test_counting_is_refused_when_a_field_is_wrong(api: Api, changes: dict[str, Any], status: int) -> None:
    with api.services.database.session() as session:
        bases.register_base(session, "flat", "1" * 64, dataclasses.replace(SPEC, k=0))
    body = {"base": "tiny", "domain": "reviews", "texts": ["w0"]} | changes
    with api.http() as http:
        json_type = {"content-type": "application/json"}  # httpx itself would refuse half a surrogate pair
        answer = http.post("/v1/hmi/frequencies", content=json.dumps(body).encode(), headers=json_type)
    assert answer.status_code == status
