from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import HitCounts, NgramCounts, bases, domains, tenants, trees
from hmi.knowledge import pack
from hmi.tenant_bits import PUBLIC, bitmap_of
from tests.apis import SPEC, Api, adapter_file
from tests.published_trees import BASE, add_base, count, delta_file, publish


@pytest.fixture
def api_with_base(api: Api) -> Api:
    """Domains general > reviews > movies, and the base model `mini`."""
    add_base(api.services)
    with api.http() as http:
        http.post("/v1/hmi/domains", json={"name": "movies", "parent": "reviews"}).raise_for_status()
    return api


def get(api: Api, path: str, **params: Any) -> Any:
    with api.http() as http:
        answer = http.get(f"/v1/hmi/trees/{BASE}{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


def set_delta(api: Api, domain: str, *paths: Path, base: str = BASE) -> httpx.Response:
    with api.http() as http:
        parts = [("files", (path.name, path.read_bytes())) for path in paths]
        return http.post("/v1/hmi/deltas", data={"base": base, "domain": domain}, files=parts)


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [each["text"] for each in found]


def test_a_tree_shows_its_tables_and_lookups(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    delta = set_delta(api, "movies", delta_file(tmp_path)).json()["artifact"]
    expected = {"movies": {"predicted_hit_rate": 0.9}}
    number = publish(api.services, {"general": [1, 2], "movies": [3]}, {"movies": [1]}, report=expected)
    with api.services.database.session() as session:
        base, movies = bases.get_base(session, BASE), domains.get_domain(session, "movies")
        found = {"lookups": 100, "hits": 80, "inherited": 20, "approximate": 30}
        trees.record_hits(session, {(base.id, number, movies.id): HitCounts(**found)})
    tree = get(api, "")
    with api.http() as http:
        assert http.get("/v1/hmi/trees", params={"base": BASE}).json()["data"] == [tree]
    assert (tree["number"], tree["building"], tree["rolled_back"]) == (number, None, False)
    size = tree["domains"]["movies"].pop("bytes")
    assert 0 < size < 1000
    assert tree["domains"]["movies"] == {
        "parent": "reviews",
        "entries": 1,
        "aliases": 1,
        "delta": delta,
        "usable": True,
        "waiting": 0,
        "unknown": 0,
        "hit_rate": 0.8,
        "predicted_hit_rate": 0.9,
        **found,
    }
    assert tree["domains"]["general"]["hit_rate"] is None
    (version,) = get(api, "/versions")["data"]
    assert (version["served"], version["hit_rate"], version["predicted_hit_rate"]) == (True, 0.8, 0.9)


def test_tables_are_unusable_when_their_function_has_changed(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    publish(api.services, {"general": [1], "reviews": [2], "movies": [3]})

    def unused() -> set[str]:
        return {name for name, each in get(api, "")["domains"].items() if not each["usable"]}

    assert unused() == set()
    set_delta(api, "reviews", delta_file(tmp_path))
    assert unused() == {"reviews", "movies"}
    with api.http() as http:
        http.patch("/v1/hmi/domains/movies", json={"parent": "general"}).raise_for_status()
        assert unused() == {"reviews"}
        http.delete(f"/v1/hmi/deltas/{BASE}/reviews").raise_for_status()
    assert unused() == set()


def test_a_domain_with_a_delta_takes_nothing_from_its_ancestors_when_versions_differ(
    api_with_base: Api, tmp_path: Path
) -> None:
    api = api_with_base
    publish(api.services, {"general": [1]})
    set_delta(api, "movies", delta_file(tmp_path))
    publish(api.services, {"general": [1], "movies": [1]})
    movies = get(api, "/diff", **{"from": 1, "to": 2})["domains"]["movies"]
    assert (movies["added"], movies["moved_in"]) == (1, 0)


def test_a_version_without_lookups_is_weighted_by_earlier_ones(api_with_base: Api) -> None:
    api = api_with_base
    rates = {"movies": {"predicted_hit_rate": 0.9}, "reviews": {"predicted_hit_rate": 0.5}}
    first = publish(api.services, {"general": [1]}, report=rates)
    assert get(api, "/versions")["data"][0]["predicted_hit_rate"] == pytest.approx(0.7)  # nothing to weigh with
    with api.services.database.session() as session:
        base = bases.get_base(session, BASE)
        for domain, lookups in (("movies", 30), ("reviews", 10)):
            trees.record_hits(
                session,
                {(base.id, first, domains.get_domain(session, domain).id): HitCounts(lookups=lookups, hits=0)},
            )
    publish(api.services, {"general": [1]}, report=rates)
    newest, before = get(api, "/versions")["data"]
    assert (newest["hit_rate"], newest["predicted_hit_rate"]) == (None, pytest.approx(0.8))
    assert (before["hit_rate"], before["predicted_hit_rate"]) == (0.0, pytest.approx(0.8))


def test_a_running_build_is_shown_with_its_progress(api_with_base: Api) -> None:
    api = api_with_base
    with api.services.database.session() as session:
        base = bases.get_base(session, BASE)
        number = trees.begin_build(session, base.id, 60)
    assert get(api, "")["building"]["progress"] is None
    progress = {"stage": "compute", "done": 3, "total": 10}
    with api.services.database.session() as session:
        assert trees.extend_build(session, base.id, number, 60, progress)
    building = get(api, "")["building"]
    assert (building["number"], building["progress"]) == (number, progress)
    assert get(api, "/versions")["data"][0]["progress"] == progress
    with api.services.database.session() as session:
        trees.fail_build(session, base.id, number, "disk full")
    assert get(api, "")["building"] is None
    failed = get(api, "/versions")["data"][0]
    assert (failed["status"], failed["error"], failed["progress"]) == ("failed", "disk full", None)


def test_an_earlier_version_serves_when_a_tree_is_rolled_back(api_with_base: Api) -> None:
    api = api_with_base
    first, second = (publish(api.services, {"general": words}) for words in ([1], [1, 2]))
    with api.http() as http:
        url = f"/v1/hmi/trees/{BASE}/rollback"
        assert error(http.post(url, json={"to": 9})) == (404, "to")
        assert error(http.post(url, json={"to": second})) == (409, "to")
        assert error(http.post(url, json={"to": 0})) == (400, "to")
        back = http.post(url).json()
        assert (back["number"], back["rolled_back"]) == (first, True)
        assert back["domains"]["general"]["entries"] == 1
        assert http.post(url, json={}).status_code == 409  # there is none before the first
        again = http.post(url, json={"to": second}).json()
        assert (again["number"], again["rolled_back"]) == (second, False)
        assert http.post("/v1/hmi/trees/unknown/rollback").status_code == 404
    assert [(each["number"], each["served"]) for each in get(api, "/versions")["data"]] == [
        (second, True),
        (first, False),
    ]


def test_ngrams_are_listed_as_text_with_where_they_are_held(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    set_delta(api, "movies", delta_file(tmp_path))
    publish(api.services, {"general": [2, 3, 4], "movies": [5]}, {"movies": [3, 9]})
    count(api.services, "movies", {5: 50, 3: 30, 2: 20, 9: 9, 7: 7})
    count(api.services, "reviews", {4: 4, 5: 5})
    found = get(api, "/top", domain="movies")
    assert [(each["text"], each["held"], each["holder"]) for each in found["data"]] == [
        ("w0 w5 w1", "own", "movies"),
        ("w0 w3 w1", "alias", "general"),
        ("w0 w2 w1", "missing", None),  # an ancestor's row of another function, and no alias
        ("w0 w9 w1", "missing", None),  # an alias whose ancestor's row was dropped
        ("w0 w7 w1", "missing", None),
    ]
    assert [each["count"] for each in found["data"]] == pytest.approx([50, 30, 20, 9, 7], rel=1e-3)
    assert (found["ngrams"], found["has_more"], found["number"]) == (5, False, 1)
    assert [(each["held"], each["holder"]) for each in get(api, "/top", domain="reviews")["data"]] == [
        ("missing", None),
        ("inherited", "general"),
    ]
    assert get(api, "/top", domain="general")["data"] == []


def test_special_and_absent_tokens_are_shown(api_with_base: Api) -> None:
    api = api_with_base
    with api.http() as http:
        body = {"base": BASE, "domain": "reviews", "texts": ["w0"]}
        http.post("/v1/hmi/frequencies", json=body).raise_for_status()
    found = {each["text"]: each["tokens"] for each in get(api, "/top", domain="reviews")["data"]}
    assert found == {
        "[CLS] w0": [None, "[CLS]", "w0"],
        "[CLS] w0 [SEP]": ["[CLS]", "w0", "[SEP]"],
        "w0 [SEP]": ["w0", "[SEP]", None],
    }


def test_ids_that_the_tokenizer_does_not_know_are_shown_as_numbers(api_with_base: Api) -> None:
    api = api_with_base
    from hmi.catalog import frequencies

    with api.services.database.session() as session:
        base, reviews = bases.get_base(session, BASE), domains.get_domain(session, "reviews")
        key = pack(np.array([2]), np.array([SPEC.vocab_size - 1]), np.array([-1]))
        frequencies.add(session, [NgramCounts(base.id, reviews.id, key, [1.0], PUBLIC)], half_life_seconds=1e9)
    (found,) = get(api, "/top", domain="reviews")["data"]
    assert found["text"] == f"[CLS] <{SPEC.vocab_size - 1}>"


def test_all_ngrams_come_once_when_read_in_parts(api_with_base: Api) -> None:
    api = api_with_base
    count(api.services, "reviews", {word: word // 3 + 1 for word in range(25)})  # many are equally frequent
    seen: list[dict[str, Any]] = []
    params: dict[str, Any] = {"domain": "reviews", "limit": 4}
    while True:
        page = get(api, "/top", **params)
        seen += page["data"]
        if not page["has_more"]:
            break
        assert page["last_id"] == page["data"][-1]["id"]
        params["after"] = page["last_id"]
    assert len(seen) == 25
    assert len({each["id"] for each in seen}) == 25
    counts = [each["count"] for each in seen]
    assert counts == sorted(counts, reverse=True)
    whole = get(api, "/top", domain="reviews", limit=1000)["data"]
    assert [each["id"] for each in whole] == [each["id"] for each in seen]


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ({"domain": "unknown"}, (404, "domain")),
        ({}, (400, "domain")),
        ({"domain": "reviews", "limit": 0}, (400, "limit")),
        ({"domain": "reviews", "after": "x"}, (400, "after")),
        ({"domain": "reviews", "after": "f" * 16}, (400, "after")),
        ({"domain": "reviews", "after": "0" * 16}, (400, "after")),
    ],
)
def test_a_list_of_ngrams_is_refused_when_a_field_is_wrong(
    api_with_base: Api, params: dict[str, Any], answer: tuple[int, str]
) -> None:
    with api_with_base.http() as http:
        assert error(http.get(f"/v1/hmi/trees/{BASE}/top", params=params)) == answer
        assert http.get("/v1/hmi/trees/unknown/top", params={"domain": "reviews"}).status_code == 404


def test_versions_differ_in_ngrams_added_dropped_and_moved(api_with_base: Api) -> None:
    api = api_with_base
    count(api.services, "movies", {5: 50, 6: 60, 8: 8})
    first = publish(api.services, {"general": [1, 2], "reviews": [4], "movies": [3, 8]})
    second = publish(api.services, {"general": [1, 2, 3], "reviews": [], "movies": [4, 5, 6, 7]})
    found = get(api, "/diff", **{"from": first, "to": second, "limit": 2})
    assert (found["before"], found["after"]) == (first, second)
    numbers = {
        name: [
            each[field] for field in ("entries_before", "entries_after", "added", "dropped", "moved_in", "moved_out")
        ]
        for name, each in found["domains"].items()
    }
    assert numbers == {"general": [2, 3, 0, 0, 1, 0], "reviews": [1, 0, 0, 0, 0, 1], "movies": [2, 4, 3, 1, 1, 1]}
    movies = found["domains"]["movies"]
    assert texts(movies["heaviest_added"]) == ["w0 w6 w1", "w0 w5 w1"]
    assert texts(movies["heaviest_dropped"]) == ["w0 w8 w1"]
    assert movies["heaviest_added"][0]["count"] == pytest.approx(60, rel=1e-3)
    assert 0 < movies["bytes_before"] < movies["bytes_after"]
    back = get(api, "/diff", **{"from": second, "to": first})["domains"]["movies"]
    assert [back[field] for field in ("added", "dropped", "moved_in", "moved_out")] == [1, 3, 1, 1]
    same = get(api, "/diff", **{"from": first, "to": first})["domains"].values()
    assert not any(each["added"] or each["dropped"] or each["moved_in"] for each in same)


def test_lookups_of_descendants_count_for_an_ancestor(api_with_base: Api) -> None:
    api = api_with_base
    count(api.services, "movies", {5: 50})
    count(api.services, "reviews", {5: 10, 6: 55})
    publish(api.services, {"general": []})
    publish(api.services, {"general": [5, 6]})
    found = get(api, "/diff", **{"from": 1, "to": 2})["domains"]["general"]["heaviest_added"]
    assert [each["count"] for each in found] == pytest.approx([60, 55], rel=1e-3)


def test_a_row_that_becomes_an_alias_is_no_change_of_ngrams(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    set_delta(api, "movies", delta_file(tmp_path))
    publish(api.services, {"general": [1], "movies": [1, 2]})
    publish(api.services, {"general": [1], "movies": [2]}, {"movies": [1]})
    movies = get(api, "/diff", **{"from": 1, "to": 2})["domains"]["movies"]
    assert [movies[f"{what}_{when}"] for what in ("entries", "aliases") for when in ("before", "after")] == [2, 1, 0, 1]
    assert [movies[field] for field in ("added", "dropped", "moved_in", "moved_out")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ({"from": 1, "to": 9}, (404, "to")),
        ({"from": 9, "to": 1}, (404, "from")),
        ({"from": 1, "to": 2}, (409, "to")),
        ({"from": 1}, (400, "to")),
        ({"from": 1, "to": 2**31}, (400, "to")),
        ({"from": 1, "to": 1, "limit": 101}, (400, "limit")),
    ],
)
def test_a_comparison_is_refused_when_a_version_cannot_be_read(
    api_with_base: Api, params: dict[str, int], answer: tuple[int, str]
) -> None:
    publish(api_with_base.services, {"general": [1]})
    with api_with_base.services.database.session() as session:
        base = bases.get_base(session, BASE)
        trees.fail_build(session, base.id, trees.begin_build(session, base.id, 60), "x")
    with api_with_base.http() as http:
        assert error(http.get(f"/v1/hmi/trees/{BASE}/diff", params=params)) == answer


def test_a_damaged_table_is_left_out_when_trees_are_read(api_with_base: Api) -> None:
    api = api_with_base
    publish(api.services, {"general": [1], "movies": [2]})
    count(api.services, "movies", {1: 2, 2: 1})
    with api.services.database.session(read_only=True) as session:
        published = trees.published(session, bases.get_base(session, BASE).id)
        assert published is not None
        digest = published.tables["movies"]
    shutil.rmtree(api.services.artifacts.folder(digest))
    found = get(api, "/top", domain="movies")["data"]
    assert [(each["held"], each["holder"]) for each in found] == [("inherited", "general"), ("missing", None)]
    assert get(api, "/diff", **{"from": 1, "to": 1})["domains"]["movies"]["entries_after"] == 0


def test_endpoints_of_trees_are_refused_when_k_is_0(api: Api) -> None:
    import dataclasses

    with api.services.database.session() as session:
        bases.register_base(session, "flat", "1" * 64, dataclasses.replace(SPEC, k=0))
    with api.http() as http:
        assert error(http.post("/v1/hmi/trees/flat/rebuild")) == (400, "base")
        assert error(http.post("/v1/hmi/trees/flat/rollback")) == (400, "base")
        assert error(http.get("/v1/hmi/trees/flat/versions")) == (400, "base")
        assert error(http.get("/v1/hmi/trees/flat/top", params={"domain": "general"})) == (400, "base")
        assert error(http.get("/v1/hmi/trees/flat/diff", params={"from": 1, "to": 2})) == (400, "base")
        assert http.get("/v1/hmi/trees/flat").json()["k"] == 0


def test_a_domain_is_moved_with_all_that_is_under_it(api_with_base: Api) -> None:
    with api_with_base.http() as http:
        http.post("/v1/hmi/domains", json={"name": "media"}).raise_for_status()
        moved = http.patch("/v1/hmi/domains/reviews", json={"parent": "media"})
        assert (moved.status_code, moved.json()["parent"]) == (200, "media")
        found = {each["name"]: each["parent"] for each in http.get("/v1/hmi/domains").json()["data"]}
        assert found == {"general": None, "media": "general", "reviews": "media", "movies": "reviews"}
        assert error(http.patch("/v1/hmi/domains/media", json={"parent": "movies"})) == (400, "parent")
        assert error(http.patch("/v1/hmi/domains/general", json={"parent": "media"})) == (400, "parent")
        assert error(http.patch("/v1/hmi/domains/unknown", json={"parent": "media"})) == (404, "domain")
        assert error(http.patch("/v1/hmi/domains/media", json={"parent": "unknown"})) == (404, "parent")
        assert error(http.patch("/v1/hmi/domains/media", json={"parent": "general", "x": 1})) == (400, "x")


def test_a_delta_is_kept_in_its_own_form_and_replaced(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    path = delta_file(tmp_path / "a")
    first = set_delta(api, "movies", path)
    assert first.status_code == 200, first.text
    assert (first.json()["base"], first.json()["domain"]) == (BASE, "movies")
    assert (first.json()["summary"]["rank"], first.json()["summary"]["layers"]) == (2, [0])
    again = set_delta(api, "movies", path).json()
    assert again["artifact"] == first.json()["artifact"]
    second = set_delta(api, "movies", delta_file(tmp_path / "b", seed=1)).json()
    assert second["artifact"] != again["artifact"]
    stored = load_adapter(api.services.artifacts.folder(first.json()["artifact"]) / FILE_NAME)
    assert sorted(stored.tensors()) == ["lora.0.q.a", "lora.0.q.b"]
    with api.http() as http:
        assert http.get(f"/v1/hmi/deltas/{BASE}/movies").json() == second
        assert http.get("/v1/hmi/deltas").json()["data"] == [second]
        assert http.get("/v1/hmi/deltas", params={"base": "tiny"}).json()["data"] == []
        gone = http.delete(f"/v1/hmi/deltas/{BASE}/movies").json()
        assert gone == {"id": f"{BASE}/movies", "object": "hmi.delta", "deleted": True}
        for method in ("GET", "DELETE"):
            assert error(http.request(method, f"/v1/hmi/deltas/{BASE}/movies")) == (404, "domain")
        assert http.get("/v1/hmi/deltas").json()["data"] == []
        assert http.get("/v1/hmi/deltas", params={"base": "unknown"}).status_code == 404


def peft_folder(folder: Path, layer: int) -> list[Path]:
    hidden = SPEC.hidden_size
    name = f"base_model.model.encoder.layer.{layer}.attention.self.query.lora"
    tensors = {
        f"{name}_A.weight": np.ones((2, hidden), np.float32),
        f"{name}_B.weight": np.ones((hidden, 2), np.float32),
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "layers_to_transform": [layer]}
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(safetensors.numpy.save(tensors))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return sorted(folder.iterdir())


def test_a_peft_lora_of_lower_layers_is_a_delta(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    made = set_delta(api, "movies", *peft_folder(tmp_path / "peft", layer=0)).json()
    stored = load_adapter(api.services.artifacts.folder(made["artifact"]) / FILE_NAME)
    np.testing.assert_array_equal(stored.tensors()["lora.0.q.b"], 2.0)  # alpha / rank is in it
    refused = set_delta(api, "movies", *peft_folder(tmp_path / "upper", layer=1))
    assert refused.status_code == 400
    assert "lower layers 0..0 only" in refused.json()["error"]["message"]


def test_a_delta_is_refused_with_the_reason_and_the_old_one_stays(api_with_base: Api, tmp_path: Path) -> None:
    api = api_with_base
    before = set_delta(api, "movies", delta_file(tmp_path / "a")).json()
    upper = set_delta(api, "movies", delta_file(tmp_path / "b", layer=1))
    assert (upper.status_code, upper.json()["error"]["code"]) == (400, "adapter_refused")
    with_head = set_delta(api, "movies", adapter_file(tmp_path / "c"))
    assert "without a head" in with_head.json()["error"]["message"]
    big = tmp_path / FILE_NAME
    big.write_bytes(b"x" * 60_000)
    assert set_delta(api, "movies", big).status_code == 413
    assert error(set_delta(api, "unknown", delta_file(tmp_path / "a"))) == (404, "domain")
    assert error(set_delta(api, "movies", delta_file(tmp_path / "a"), base="unknown")) == (404, "base")
    assert error(set_delta(api, "movies")) == (400, "files")
    with api.http() as http:
        assert http.get("/v1/hmi/deltas").json()["data"] == [before]
        for domain, code in (("unknown", "domain_not_found"), ("reviews", "delta_not_found")):
            assert http.delete(f"/v1/hmi/deltas/{BASE}/{domain}").json()["error"]["code"] == code


def test_ngrams_of_single_tenants_are_shown_to_that_tenant_alone(api_with_base: Api) -> None:
    api = api_with_base
    with api.http() as http:
        private = {"name": "diary", "owner": "acme", "audience": "private"}
        for body in (private, {"name": "club", "audience": "tenants", "tenants": ["acme"]}):
            made = http.post("/v1/hmi/domains", json=body)
            assert made.status_code == 200, made.text
    with api.services.database.session(read_only=True) as session:
        acme = bitmap_of(tenants.get_tenant(session, "acme").bit)
    three = 0b111 << 20
    for domain in ("diary", "club", "movies"):
        count(api.services, domain, {1: 9.0}, acme)
        count(api.services, domain, {2: 8.0}, three)
        count(api.services, domain, {3: 7.0})
        count(api.services, domain, {4: 6.0}, 0)
    first = publish(api.services, {"general": [5]})
    second = publish(api.services, {name: [1, 2, 3, 4] for name in ("diary", "club", "movies")})

    def listed(who: str, domain: str) -> list[str] | int:
        with api.http(who) as http:
            answer = http.get(f"/v1/hmi/trees/{BASE}/top", params={"domain": domain})
        return [each["text"] for each in answer.json()["data"]] if answer.status_code == 200 else answer.status_code

    shared, public = ["w0 w2 w1", "w0 w3 w1"], ["w0 w3 w1"]
    assert [listed("operator", each) for each in ("diary", "club", "movies")] == [public, shared, shared]
    assert [listed("acme", each) for each in ("diary", "club", "movies")] == [["w0 w1 w1", *public], 403, 403]
    assert [listed("rival", each) for each in ("diary", "club", "movies")] == [404, 404, 403]
    totals = get(api, "/top", domain="movies")
    assert (totals["ngrams"], totals["waiting"], totals["unknown"]) == (2, 1, 1)
    domains_ = get(api, "/diff", **{"from": first, "to": second})["domains"]
    for domain, texts in (("diary", public), ("club", shared), ("movies", shared)):
        assert domains_[domain]["added"] == 4
        assert [each["text"] for each in domains_[domain]["heaviest_added"]] == texts
    assert [each["text"] for each in domains_["general"]["heaviest_dropped"]] == []


def test_counts_of_unknown_origin_are_declared_public(api_with_base: Api) -> None:
    api = api_with_base
    count(api.services, "movies", {1: 2.0, 2: 1.0}, 0)
    body = {"base": BASE, "domain": "movies"}
    with api.http() as http:
        answers = [http.post("/v1/hmi/frequencies/public", json=body).json()["ngrams"] for _ in range(2)]
        assert http.post("/v1/hmi/frequencies/public", json={**body, "domain": "unknown"}).status_code == 404
    assert answers == [2, 0]
    assert get(api, "/top", domain="movies")["ngrams"] == 2
