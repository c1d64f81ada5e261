from __future__ import annotations

import pytest
from pydantic import SecretStr

from hmi.errors import Transient
from hmi.jobs import QueueName, TaskName, make_client, ping, send
from hmi.settings import Settings

NOWHERE = SecretStr("redis://127.0.0.1:1/0")


def settings(broker_url: SecretStr) -> Settings:
    return Settings(_env_file=None, broker_url=broker_url)


def test_a_message_lands_in_its_queue_with_ids_alone() -> None:
    client = make_client(settings(SecretStr("memory://")))
    task_id = send(client, TaskName.RUN_SHARD, "shard_1", 2)
    with client.connection_for_read() as connection:
        message = connection.SimpleQueue(QueueName.SHARDS.value).get(timeout=5)
    assert message.headers["task"] == "hmi.run_shard"
    assert message.headers["id"] == task_id
    assert message.content_type == "application/json"
    assert message.payload[0] == ["shard_1", 2]


def test_send_and_ping_say_transient_when_the_broker_is_down() -> None:
    client = make_client(settings(NOWHERE))
    with pytest.raises(Transient) as caught:
        send(client, TaskName.DISPATCH)
    assert caught.value.code == "broker_unavailable"
    with pytest.raises(Transient):
        ping(client)


def test_results_and_pickles_are_off() -> None:
    conf = make_client(settings(NOWHERE)).conf
    assert conf.accept_content == ["json"]
    assert conf.result_backend is None
    assert conf.broker_transport_options["visibility_timeout"] == Settings().visibility_timeout_seconds
