"""From labelled text to answers with the official client, while workers are killed and stopped."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from api.app import create_app
from hmi.catalog import JobState, Role, TuningJob, models, tenants
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from tests.apis import serve
from tests.e2e.cluster import Cluster, ServiceProcess, run_cluster
from tests.tiny import tiny_bert_folder
from worker.lifecycle import TuningPoint
from worker.lifecycle.failpoints import VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE_SECONDS = 500

LABELS = ("no", "yes")


@dataclass(frozen=True)
class Shop:
    """Workers, and a tenant's client of their API."""

    cluster: Cluster
    client: OpenAI

    def tune(self, suffix: str, *, epochs: int, training_file: str) -> FineTuningJob:
        return self.client.fine_tuning.jobs.create(
            model="small",
            training_file=training_file,
            suffix=suffix,
            seed=1,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 16}}},
            extra_body={"hmi": {"rank": 8}},
        )

    def upload(self, content: bytes, purpose: Any) -> str:
        return self.client.files.create(file=("file.jsonl", content), purpose=purpose).id

    def wait_for(self, job: FineTuningJob) -> FineTuningJob:
        def has_ended() -> bool:
            return self.client.fine_tuning.jobs.retrieve(job.id).finished_at is not None

        self.cluster.wait_until(has_ended, PATIENCE_SECONDS, what=f"the end of {job.id}")
        return self.client.fine_tuning.jobs.retrieve(job.id)

    def row(self, job: FineTuningJob) -> TuningJob:
        with self.cluster.site.database.session(read_only=True) as session:
            return session.get_one(TuningJob, job.id)

    def artifact(self, job: FineTuningJob) -> str | None:
        """Digest of the model that the job made."""
        with self.cluster.site.database.session(read_only=True) as session:
            principal = tenants.principal_of(session, self.row(job).tenant_id)
            return models.get_model(session, principal, job.fine_tuned_model or "").artifact

    def classify(self, model: str, texts: list[str]) -> list[str]:
        """Run a batch and return the texts' labels."""
        lines = [
            {"custom_id": f"{n:04}", "method": "POST", "url": "/v1/classify", "body": {"model": model, "input": text}}
            for n, text in enumerate(texts)
        ]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        batch = self.client.batches.create(
            input_file_id=self.upload(content, "batch"),
            endpoint="/v1/classify",  # type: ignore[arg-type]
            completion_window="24h",
        )
        self.cluster.wait_until(
            lambda: self.client.batches.retrieve(batch.id).status == "completed", PATIENCE_SECONDS, what=batch.id
        )
        file_id = self.client.batches.retrieve(batch.id).output_file_id or ""
        answers = [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]
        found = {answer["custom_id"]: answer["response"]["body"]["data"][0]["label"] for answer in answers}
        return [found[custom_id] for custom_id in sorted(found)]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    convert_pretrained(tiny_bert_folder(tmp_path / "bert"), tmp_path / "base", k=2)
    with contextlib.ExitStack() as stack:
        # A training process takes its time to start where others want the cores: its niceness is the highest.
        patience = {"queued_timeout_seconds": 20, "shard_lines": 50}
        cluster = stack.enter_context(run_cluster(tmp_path, training_checkpoint_seconds=0.01, **patience))
        cluster.site.add_base("small", read_spec(tmp_path / "base"), tmp_path / "base")
        tenant_id = cluster.site.add_tenant("acme")
        with cluster.site.database.session() as session:
            key = tenants.create_key(session, tenant_id, Role.TENANT)[1]
        url = stack.enter_context(serve(create_app(cluster.site.settings)))
        strict: dict[str, Any] = {"_strict_response_validation": True}
        yield Shop(cluster, stack.enter_context(OpenAI(api_key=key, base_url=f"{url}/v1", **strict)))


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Sentences in which one word, at any place, determines the label."""
    draw, made = random.Random(seed), []
    for _ in range(count):
        label = draw.randrange(2)
        words = [f"w{draw.randrange(10, 90)}" for _ in range(draw.randint(2, 9))]
        words.insert(draw.randrange(len(words) + 1), f"w{label}")
        made.append((" ".join(words), LABELS[label]))
    return made


def labelled(pairs: list[tuple[str, str]]) -> bytes:
    return b"".join(json.dumps({"text": text, "label": label}).encode() + b"\n" for text, label in pairs)


def trainer_of(worker: ServiceProcess) -> psutil.Process | None:
    """The training process of a worker that trains."""
    found = psutil.Process(worker.process.pid).children()
    return next((child for child in found if "worker.tuning.trainer" in " ".join(child.cmdline())), None)


def test_a_tenant_is_trained_and_classifies_at_once_though_its_worker_was_killed(shop: Shop) -> None:
    cluster = shop.cluster
    cluster.beat()
    doomed = cluster.worker("--name", "doomed", **{VARIABLE: TuningPoint.CHECKPOINT})
    text = shop.upload(labelled(sentences(300, seed=1)), "fine-tune")
    job = shop.tune("sentiment", epochs=6, training_file=text)
    # In the middle, with a checkpoint in the storage.
    assert doomed.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL, doomed.log
    with redis.Redis.from_url(cluster.site.settings.broker_url.get_secret_value()) as client:
        client.flushall()
    assert shop.client.fine_tuning.jobs.retrieve(job.id).finished_at is None

    heir = cluster.worker("--name", "heir")
    done = shop.wait_for(job)
    assert (done.status, done.fine_tuned_model) == ("succeeded", "acme/sentiment"), done.error
    said = [event.message for event in shop.client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert any(message.startswith("Fine-tuning job resumed from step") for message in said)
    assert sum(message.startswith("Epoch 1:") for message in said) == 1
    report = json.loads(shop.client.files.content(done.result_files[0]).text)
    assert report["resumed_at"] > 0
    held_out = sentences(100, seed=2)
    found = shop.classify("acme/sentiment", [text for text, _ in held_out])
    assert (
        sum(label == true for label, (_, true) in zip(found, held_out, strict=True)) > 75
    )  # of 100; half of them by chance

    undisturbed = shop.wait_for(shop.tune("undisturbed", epochs=6, training_file=text))
    assert shop.artifact(undisturbed) == shop.artifact(done)  # to the last bit
    assert heir.end(signal.SIGTERM) == 0, heir.log


def test_a_job_survives_its_process_and_is_released_when_the_worker_stops(shop: Shop) -> None:
    cluster = shop.cluster
    cluster.beat()
    worker = cluster.worker("--name", "first", "--queues", "hmi.training,hmi.control")
    text = shop.upload(labelled(sentences(300, seed=1)), "fine-tune")
    job = shop.tune("long", epochs=100, training_file=text)

    def steps() -> int:
        return int((shop.row(job).progress or {}).get("done", 0))

    cluster.wait_until(steps, PATIENCE_SECONDS, what="the first step")
    trainer = trainer_of(worker)
    assert trainer is not None
    assert trainer.nice() > psutil.Process(worker.process.pid).nice()
    trainer.kill()
    following: list[psutil.Process] = []  # kept when seen: its launcher becomes it, and has no command for a moment

    def has_followed() -> bool:
        found = trainer_of(worker) if shop.row(job).attempt > 1 else None
        following.extend([found] if found else [])
        return bool(following)

    cluster.wait_until(has_followed, PATIENCE_SECONDS, what="the next process")
    assert "killed by SIGKILL" in (shop.row(job).last_failure or "")
    (second,) = following

    before = shop.row(job).failures
    began = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0, worker.log
    assert time.monotonic() - began < 28
    assert not second.is_running()
    released = shop.row(job)
    assert released.state in (JobState.PENDING, JobState.QUEUED)
    assert released.failures <= before
    assert shop.client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
