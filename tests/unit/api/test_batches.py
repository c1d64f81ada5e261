from __future__ import annotations

from typing import Any

import openai
import pytest
from sqlalchemy import func, select

from hmi.catalog import Batch, File, Shard
from hmi.jobs import QueueName
from tests.apis import Api, batch_line
from tests.waiting import wait_until

EMBED: dict[str, Any] = {"endpoint": "/v1/embeddings", "completion_window": "24h"}


def messages(api: Api) -> list[str]:
    """Names of the tasks that wait."""
    found = []
    with api.services.broker.connection_for_read() as connection:
        queue = connection.SimpleQueue(QueueName.CONTROL.value)
        while queue.qsize():
            message = queue.get()
            message.ack()
            found.append(message.headers["task"])
    return found


def test_a_batch_is_accepted_with_its_shards_and_a_dispatch(api: Api) -> None:
    file_id = api.upload(*(batch_line(str(number)) for number in range(5)))
    with api.openai() as client:
        batch = client.batches.create(input_file_id=file_id, metadata={"run": "7"}, **EMBED)
        assert batch.status == "in_progress"
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 5, "completed": 0, "failed": 0}
        assert batch.metadata == {"run": "7"}
        assert (batch.errors, batch.output_file_id, batch.error_file_id) == (None, None, None)
        assert batch.expires_at == batch.created_at + 24 * 3600
        assert client.batches.retrieve(batch.id) == batch
    with api.services.database.session() as session:
        shards = session.scalars(select(Shard).order_by(Shard.first_line)).all()
        assert [(shard.first_line, shard.lines) for shard in shards] == [(0, 2), (2, 2), (4, 1)]
    wait_until(lambda: "hmi.dispatch" in messages(api), what="the dispatch")  # it is sent after the answer


def test_a_batch_fails_at_validation_when_a_line_cannot_be_answered(api: Api) -> None:
    file_id = api.upload(batch_line("a"), b"nonsense\n", batch_line("a"), batch_line("b", url="/v1/classify"))
    with api.openai() as client:
        batch = client.batches.create(input_file_id=file_id, **EMBED)
    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors is not None
    assert [(each.line, each.code) for each in batch.errors.data or []] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "mismatched_url"),
    ]
    with api.services.database.session() as session:
        assert session.scalar(select(func.count()).select_from(Shard)) == 0


def test_an_empty_file_fails_its_batch(api: Api) -> None:
    file_id = api.upload(b"")
    with api.openai() as client:
        batch = client.batches.create(input_file_id=file_id, **EMBED)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert (batch.status, batch.errors.data[0].code) == ("failed", "empty_file")


def test_a_body_that_is_wrong_inside_does_not_fail_its_batch(api: Api) -> None:
    file_id = api.upload(batch_line("a", body={"input": 7}), batch_line("b"))
    with api.openai() as client:
        assert client.batches.create(input_file_id=file_id, **EMBED).status == "in_progress"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "1d"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "9999h"}, "completion_window"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, None),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 7}}, "metadata.k"),
        ({"metadata": {"k": "\u0000"}}, "metadata"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_a_batch_is_refused_by_name_when_a_field_is_wrong(api: Api, changes: dict[str, Any], param: str | None) -> None:
    fields = {"input_file_id": api.upload(batch_line()), **EMBED, **changes}
    with api.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**fields)
    if param is not None:
        assert caught.value.param == param
    with api.services.database.session() as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 0


@pytest.mark.parametrize("window", ["1m", "30m", "1h", "24h", "720h"])
def test_windows_are_minutes_or_hours(api: Api, window: str) -> None:
    file_id = api.upload(batch_line())
    seconds = int(window[:-1]) * {"m": 60, "h": 3600}[window[-1]]
    with api.openai() as client:
        batch = client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/embeddings",
            completion_window=window,  # type: ignore[arg-type]
        )
    assert batch.completion_window == window
    assert batch.expires_at == batch.created_at + seconds


def test_a_batch_is_refused_when_its_file_holds_results(api: Api) -> None:
    file_id = api.upload(batch_line())
    with api.services.database.session() as session:
        session.get_one(File, file_id).purpose = "batch_output"
    with api.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id=file_id, **EMBED)
    assert caught.value.param == "input_file_id"


def test_batches_are_listed_in_pages_newest_first(api: Api) -> None:
    ids = [api.submit(batch_line()) for _ in range(5)]
    with api.openai() as client:
        assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]
        with pytest.raises(openai.BadRequestError):
            client.batches.list(limit=101)


def test_cancelling_twice_is_no_error_and_cancelling_the_ended_is(api: Api) -> None:
    batch_id = api.submit(batch_line("a"), batch_line("b"))
    with api.openai() as client:
        first = client.batches.cancel(batch_id)
        assert first.status == "cancelling"
        assert first.cancelling_at
        assert client.batches.cancel(batch_id).cancelling_at == first.cancelling_at
        failed = client.batches.create(input_file_id=api.upload(b"x"), **EMBED)
        with pytest.raises(openai.BadRequestError):
            client.batches.cancel(failed.id)


def test_a_quota_that_is_full_is_429_with_a_time_to_come_back(api: Api) -> None:
    api.submit(*(batch_line(str(number)) for number in range(8)))
    file_id = api.upload(*(batch_line(str(number)) for number in range(3)))
    with api.openai() as client, pytest.raises(openai.RateLimitError) as caught:
        client.batches.create(input_file_id=file_id, **EMBED)
    assert caught.value.code == "queued_lines_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 0


def test_the_same_idempotency_key_is_the_same_batch(api: Api) -> None:
    file_id, other_id = api.upload(batch_line()), api.upload(batch_line())
    key = {"Idempotency-Key": "Ключ-1".encode().hex()}
    with api.openai() as client:
        first = client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED)
        again = client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED)
        fresh = client.batches.create(input_file_id=file_id, **EMBED)
        assert again.id == first.id != fresh.id
        for changes in ({"input_file_id": other_id}, {"metadata": {"a": "b"}}):
            with pytest.raises(openai.BadRequestError) as caught:
                client.batches.create(**{"input_file_id": file_id, **EMBED, **changes}, extra_headers=key)
            assert caught.value.code == "idempotency_key_reused"


def test_the_first_batch_is_returned_when_its_file_was_deleted_since(api: Api) -> None:
    file_id, key = api.upload(b""), {"Idempotency-Key": "again"}
    with api.openai() as client:
        first = client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED)
        client.files.delete(file_id)
        assert client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED).id == first.id


def test_a_key_of_one_tenant_is_not_anothers(api: Api) -> None:
    key = {"Idempotency-Key": "same"}
    ids = set()
    for who in ("acme", "rival"):
        with api.openai(who) as client:
            file_id = api.upload(batch_line(), who=who)
            ids.add(client.batches.create(input_file_id=file_id, extra_headers=key, **EMBED).id)
    assert len(ids) == 2


def test_a_retry_of_the_client_is_the_same_batch(api: Api) -> None:
    file_id = api.upload(batch_line())
    retry = {"x-stainless-retry-count": "1"}
    with api.openai() as client:
        first = client.batches.create(input_file_id=file_id, metadata={"a": "b"}, **EMBED)
        again = client.batches.create(input_file_id=file_id, metadata={"a": "b"}, extra_headers=retry, **EMBED)
        other = client.batches.create(input_file_id=file_id, metadata={"a": "c"}, extra_headers=retry, **EMBED)
    assert first.id == again.id != other.id


def test_a_retry_is_a_new_batch_when_the_first_is_long_ago(api: Api) -> None:
    file_id = api.upload(batch_line())
    with api.openai() as client:
        first = client.batches.create(input_file_id=file_id, **EMBED)
        with api.services.database.session() as session:
            session.get_one(Batch, first.id).created_at -= 601
        again = client.batches.create(input_file_id=file_id, extra_headers={"x-stainless-retry-count": "2"}, **EMBED)
    assert first.id != again.id


def test_an_answer_comes_after_the_commit_when_the_broker_is_down(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*args: object, **options: object) -> None:
        raise ConnectionRefusedError("no broker")

    monkeypatch.setattr(type(api.services.broker), "send_task", down)
    batch_id = api.submit(batch_line())
    with api.openai() as client:
        assert client.batches.retrieve(batch_id).status == "in_progress"
        assert client.batches.cancel(batch_id).status == "cancelling"
