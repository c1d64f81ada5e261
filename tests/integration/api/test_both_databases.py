"""The API with the official client over SQLite and PostgreSQL, with a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from pydantic import SecretStr

from hmi.catalog import Batch, NewFile, ShardResult, finalizing, shards
from hmi.jobs import assemble, line_ids, output_line
from hmi.settings import Settings
from tests.apis import Api, adapter_file, base_files, batch_line, run_api
from tests.waiting import wait_until

EMBED: dict[str, Any] = {"endpoint": "/v1/embeddings", "completion_window": "24h"}


@pytest.fixture
def api(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database_url=database_url,
        broker_url=SecretStr(redis_url),
        shard_lines=2,
        max_queued_lines_per_tenant=100,
    )
    with run_api(settings) as api:
        yield api


def test_a_batch_goes_from_its_file_to_its_results(api: Api, redis_url: str) -> None:
    lines = [batch_line(f"id-{number}") for number in range(3)]
    with api.http() as http:
        assert http.get("/readyz").json()["status"] == "ready"
    with api.openai() as client:
        batch = client.batches.create(input_file_id=api.upload(*lines), metadata={"a": "é"}, **EMBED)
        with redis.Redis.from_url(redis_url) as broker:
            wait_until(lambda: broker.exists("hmi:hmi.control"), what="the dispatch in Redis")
        _finish(api, batch.id)
        done = client.batches.retrieve(batch.id)
        assert done.status == "completed"
        assert done.request_counts is not None
        assert done.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
        assert done.usage is not None
        assert done.usage.total_tokens == 3
        assert done.metadata == {"a": "é"}
        assert done.error_file_id is None
        assert done.output_file_id is not None
        output = client.files.content(done.output_file_id).read().splitlines()
        assert [line_ids(batch.id, number).line in each.decode() for number, each in enumerate(output)] == [True] * 3
        assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
        assert {file.id for file in client.files.list()} == {batch.input_file_id, done.output_file_id}
        with pytest.raises(openai.BadRequestError):
            client.batches.cancel(batch.id)
        client.files.delete(batch.input_file_id)


def _finish(api: Api, batch_id: str) -> None:
    """What a worker does, in short."""
    storage, database = api.services.storage, api.services.database
    with database.session() as session:
        messages = shards.dispatch(session, in_flight=10)
    for message in messages:
        with database.session() as session:
            claim = shards.claim(session, message.job_id, message.attempt, owner="test", lease_seconds=60)
        assert claim is not None
        path = f"shards/{message.job_id}.{message.attempt}"
        with storage.create(path) as file:
            for number in range(claim.first_line, claim.first_line + claim.lines):
                file.write(output_line(batch_id, number, f"id-{number}", {}))
        result = ShardResult(path, None, claim.lines, 0, claim.lines, 0)
        with database.session() as session:
            assert shards.finish(session, message.job_id, message.attempt, result)
    with database.session() as session:
        assert finalizing.finalizable(session) == [batch_id]
        assert finalizing.begin_finalizing(session, batch_id)
        batch = session.get_one(Batch, batch_id)
        done = shards.finished_shards(session, batch_id)
    made = assemble(
        storage,
        batch_id=batch_id,
        input_path=batch.input_path,
        total_lines=batch.total_lines,
        shards=done,
        not_run=None,
        output_path=f"results/{batch_id}.out",
        error_path=f"results/{batch_id}.err",
    )
    assert made.output is not None
    output = NewFile(
        file_id=f"file-{batch_id}",
        purpose="batch_output",
        filename="output.jsonl",
        bytes=made.output.bytes,
        sha256=made.output.sha256,
        path=made.output.path,
    )
    with database.session() as session:
        assert finalizing.complete(session, batch_id, output=output, error=None)


def test_racing_submits_of_one_key_are_one_batch(api: Api) -> None:
    file_id = api.upload(batch_line())
    barrier = threading.Barrier(4)

    def submit(_: int) -> str:
        with api.openai() as client:
            barrier.wait(timeout=20)
            key = {"Idempotency-Key": "one"}
            return client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(submit, range(4)))) == 1


def test_text_that_a_database_cannot_hold_is_400(api: Api) -> None:
    with api.http("acme") as http:
        body = {"input_file_id": api.upload(batch_line()), "metadata": {"k": "\0"}, **EMBED}
        assert http.post("/v1/batches", json=body).status_code == 400
        assert http.get("/v1/files?purpose=a%00").status_code == 400
        named = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a\0b", b"x")})
        assert (named.status_code, named.json()["filename"]) in {(200, "ab"), (200, "a%00b")}


def test_a_base_and_a_model_are_registered(api: Api, tmp_path: Path) -> None:
    path = adapter_file(tmp_path / "adapter")
    with api.http() as http:
        parts = [("files", (name, data)) for name, data in base_files().items()]
        base = http.post("/v1/hmi/bases", data={"name": "mini"}, files=parts).json()
        assert (base["name"], base["tree"]) == ("mini", None)
        form = {"name": "acme/topics", "base": "mini", "domain": "reviews"}
        adapter = [("files", (path.name, path.read_bytes()))]
        model = http.post("/v1/hmi/models", data=form, files=adapter).json()
        assert (model["name"], model["revision"], model["base"]) == ("acme/topics", 1, "mini")
        assert http.get("/v1/hmi/trees").json()["data"][0]["base"] == "mini"
        counted = http.post(
            "/v1/hmi/frequencies", json={"base": "mini", "domain": "general", "texts": ["w1 w2", "w1"]}
        ).json()
        assert counted["windows"] == 7
    with api.openai() as client:
        assert [each.id for each in client.models.list()] == ["acme/sentiment", "acme/topics"]


def test_a_broker_that_is_away_is_named_and_batches_are_taken_all_the_same(database_url: str, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database_url=database_url,
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
    )
    with run_api(settings) as api:
        assert api.submit(batch_line())
        with api.http() as http:
            answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["broker"] == "unavailable"
    assert answer.json()["checks"]["database"] == "ok"
