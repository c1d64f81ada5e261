"""/v1/fine_tuning/jobs with the official client, which takes no answer of another shape than its types."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from sqlalchemy import select

from hmi.adapters import Adapter
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.catalog import ClaimedTraining, File, Tenant, TuningJob, models, training_results, trainings
from hmi.errors import InvalidInput
from hmi.spec import MissPolicy
from tests.adapter_samples import bottleneck_adapter
from tests.apis import SPEC, Api
from tests.unit.api.test_batches import messages
from tests.unit.api.tuning import BASE, add_base, count, labelled, row, tune, upload_text
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def base(api: Api) -> None:
    add_base(api)


def claim(api: Api, job_id: str) -> ClaimedTraining:
    with api.services.database.session() as session:
        (message,) = [each for each in trainings.dispatch(session, in_flight=100) if each.job_id == job_id]
    with api.services.database.session() as session:
        claimed = trainings.claim(session, job_id, message.attempt, owner="test", lease_seconds=60)
    assert claimed is not None
    return claimed


def test_a_job_is_accepted_with_all_that_was_chosen_for_it(api: Api) -> None:
    file_id = upload_text(api)
    job = tune(api, training_file=file_id, suffix="sentiment", seed=7, metadata={"run": "7"})
    assert (job.object, job.status, job.model, job.training_file) == ("fine_tuning.job", "queued", BASE, file_id)
    assert (job.organization_id, job.seed, job.metadata, job.result_files) == ("acme", 7, {"run": "7"}, [])
    assert job.hyperparameters.to_dict() == {"n_epochs": 4, "batch_size": 32, "learning_rate_multiplier": 1.0}
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.to_dict() == job.hyperparameters.to_dict()
    empty = (job.error, job.fine_tuned_model, job.finished_at, job.trained_tokens, job.validation_file)
    assert empty == (None,) * 5
    assert job.to_dict()["hmi"] == {
        "task": "classification",
        "base": BASE,
        "domain": "general",
        "miss_policy": "exact",
        "kind": "bottleneck",
        "rank": 48,
        "max_tokens": 128,
        "suffix": "sentiment",
        "examples": 2,
        "started_at": None,
        "progress": None,
    }
    with api.openai() as client:
        assert client.fine_tuning.jobs.retrieve(job.id) == job
        (event,) = client.fine_tuning.jobs.list_events(job.id)
        assert list(client.fine_tuning.jobs.checkpoints.list(job.id)) == []
    assert (event.message, event.level, event.type) == (f"Created fine-tuning job: {job.id}", "info", "message")
    assert row(api, job.id).cost == 4 * (5 + 3)  # words, [CLS] and [SEP], four times
    wait_until(lambda: "hmi.dispatch" in messages(api), what="the dispatch")  # it is sent after the answer


@pytest.mark.parametrize("place", ["hyperparameters", "method"])
def test_hyperparameters_are_taken_from_either_place(api: Api, place: str) -> None:
    asked = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    method = {"type": "supervised", "supervised": {"hyperparameters": asked}}
    job = tune(api, **({"method": method} if place == "method" else {"hyperparameters": asked}))
    assert job.hyperparameters.to_dict() == {"n_epochs": 2, "batch_size": 32, "learning_rate_multiplier": 0.5}
    config = row(api, job.id).config["config"]
    assert (config["epochs"], config["learning_rate"]) == (2, pytest.approx(1.5e-3))


def test_what_openai_has_no_field_for_is_asked_for_beside(api: Api) -> None:
    options = {
        "task": "classification",
        "domain": "reviews",
        "kind": "lora",
        "rank": 4,
        "miss_policy": "backoff",
        "max_tokens": 3,
    }
    job = tune(api, extra_body={"hmi": options})
    kept = row(api, job.id)
    assert (kept.domain, kept.miss_policy) == ("reviews", MissPolicy.BACKOFF)
    config = kept.config["config"]
    assert (config["kind"], config["rank"], config["max_tokens"]) == ("lora", 4, 3)
    assert kept.cost == 4 * (3 + 3)


def test_a_model_of_the_tenants_own_is_trained_anew_where_it_was(api: Api) -> None:
    with api.services.database.session() as session:
        tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
        models.register_model(
            session,
            tenant_id,
            "mine",
            base=BASE,
            domain="reviews",
            miss_policy=MissPolicy.BACKOFF,
            artifact=None,
            summary={},
        )
    job = tune(api, model="acme/mine")
    kept = row(api, job.id)
    assert (job.model, kept.base, kept.domain, kept.miss_policy) == ("acme/mine", BASE, "reviews", MissPolicy.BACKOFF)
    assert kept.target.startswith("mine-")


def add_model(api: Api, name: str, adapter: Adapter | None) -> str | None:
    """A model of `acme`'s with this adapter, or the base model alone; its artifact."""
    artifact = None
    if adapter is not None:
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(adapter, Path(folder, FILE_NAME))
            artifact = api.services.artifacts.put_folder(Path(folder))
    with api.services.database.session() as session:
        tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
        models.register_model(
            session,
            tenant_id,
            name,
            base=BASE,
            domain="general",
            miss_policy=MissPolicy.EXACT,
            artifact=artifact,
            summary={},
        )
    return artifact


def test_training_begins_with_a_model_of_the_tenants_own(api: Api) -> None:
    ordinary = dataclasses.replace(SPEC, k=0)
    artifact = add_model(api, "full", bottleneck_adapter(np.random.default_rng(1), 6, spec=ordinary))
    kept = row(api, tune(api, extra_body={"hmi": {"start": "acme/full"}}).id)
    config = kept.config["config"]
    assert (config["kind"], config["rank"], config["epochs"], config["learning_rate"]) == ("bottleneck", 6, 2, 1e-3)
    assert kept.config["start"] == artifact
    halved = tune(
        api,
        hyperparameters={"learning_rate_multiplier": 0.5, "n_epochs": 1},
        extra_body={"hmi": {"start": "acme/full"}},
    )
    config = row(api, halved.id).config["config"]
    assert (config["epochs"], config["learning_rate"]) == (1, 5e-4)


def test_a_model_is_nothing_to_begin_with_when_it_has_no_adapter_that_fits(api: Api) -> None:
    add_model(api, "bare", None)
    wide = dataclasses.replace(SPEC, hidden_size=2 * SPEC.hidden_size)
    add_model(api, "wide", bottleneck_adapter(np.random.default_rng(1), spec=wide))
    add_model(api, "full", bottleneck_adapter(np.random.default_rng(1), spec=SPEC))
    for options, said in (
        ({"start": "acme/bare"}, "has no adapter"),
        ({"start": "acme/wide"}, "does not fit small: bottleneck"),
        ({"start": "acme/full", "rank": 4}, "leave them out"),
    ):
        with pytest.raises(openai.BadRequestError, match=said) as caught:
            tune(api, extra_body={"hmi": options})
        assert caught.value.param == "hmi.start"
    with pytest.raises(openai.NotFoundError):  # as if it were not there
        tune(api, who="rival", extra_body={"hmi": {"start": "acme/full"}})
    assert count(api) == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": True}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"batch_size": 1e300}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": -1}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"suffix": "a/b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"extra_body": {"hmi": {"kind": "none"}}}, "hmi.kind"),
        ({"extra_body": {"hmi": {"task": "poetry"}}}, "hmi.task"),
        ({"extra_body": {"hmi": {"rank": 0}}}, "hmi.rank"),
        ({"extra_body": {"hmi": {"layers": 3}}}, "hmi.layers"),
        ({"extra_body": {"surplus": 3}}, "surplus"),
        (
            {
                "hyperparameters": {"n_epochs": 1},
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            },
            "hyperparameters",
        ),
    ],
)
def test_a_job_is_refused_by_name_when_a_field_is_wrong(api: Api, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, **fields)
    assert caught.value.param == param
    assert count(api) == 0


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "nothing"}, "model_not_found", "model"),
        ({"model": "acme/nothing"}, "model_not_found", "model"),
        ({"extra_body": {"hmi": {"start": "acme/nothing"}}}, "model_not_found", "hmi.start"),
        ({"training_file": "file-unknown"}, "file_not_found", "training_file"),
        ({"validation_file": "file-unknown"}, "file_not_found", "validation_file"),
        ({"extra_body": {"hmi": {"domain": "nowhere"}}}, "domain_not_found", "hmi.domain"),
    ],
)
def test_a_job_is_refused_when_what_it_names_is_not_there(
    api: Api, fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        tune(api, **fields)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (labelled(("w1", "good"), ("w2", "good")), "at least two labels"),
        (labelled(("w1", "good"), ("  ", "bad")), "line 2"),
        (labelled() + b'{"review": "w1", "stars": 5}\n', "line 3"),
        (labelled() + b'{"text": "\xff", "label": "good"}\n', "line 3"),
        (labelled() + b'{"text": "' + b"w1 " * 1000 + b'", "label": "good"}\n', "line 3"),
        (labelled() + b'{"tokens": ["w1"], "tags": ["O"]}\n', "line 3"),
        (b"", "no examples"),
    ],
    ids=["one label", "empty text", "columns", "not UTF-8", "long line", "mixture", "empty"],
)
def test_bad_data_is_refused_with_line_and_reason(api: Api, content: bytes, said: str) -> None:
    file_id = upload_text(api, content)
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=file_id)
    assert (caught.value.code, caught.value.param) == ("invalid_training_file", "training_file")
    assert said in caught.value.message
    assert count(api) == 0


def test_problems_are_listed_up_to_a_length(api: Api) -> None:
    file_id = upload_text(api, labelled() + b"nonsense\n" * 30)
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=file_id)
    assert caught.value.message.count("line ") == 20
    assert "and 10 more" in caught.value.message


def test_a_file_of_csv_is_known_by_its_name(api: Api) -> None:
    file_id = upload_text(api, b"text,label\nw1 w2,good\nw3,bad\n", name="reviews.CSV")
    other = upload_text(api, b"text,label\nw4,good\n", name="others.csv")
    job = tune(api, training_file=file_id, validation_file=other)
    config = row(api, job.id).config
    assert (config["training_form"], config["validation_form"], job.validation_file) == ("csv", "csv", other)


def test_a_file_does_not_judge_what_was_trained_on_it(api: Api) -> None:
    file_id = upload_text(api)
    with pytest.raises(openai.BadRequestError, match="must not be trained on") as caught:
        tune(api, training_file=file_id, validation_file=file_id)
    assert caught.value.param == "validation_file"
    assert count(api) == 0


def test_a_validation_file_may_have_one_label_but_none_of_its_own(api: Api) -> None:
    assert tune(api, validation_file=upload_text(api, labelled(("w1", "good")))).validation_file
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, validation_file=upload_text(api, labelled(("w1", "else"))))
    assert (caught.value.code, caught.value.param) == ("unknown_label", "validation_file")


def test_a_validation_file_may_name_parts_in_its_own_way(api: Api) -> None:
    training = upload_text(api, b'{"tokens": ["w1", "w2"], "tags": ["B-PER", "O"]}\n')
    for judging in (
        b'{"tokens": ["w1", "w2"], "tags": ["B-PER", "I-PER"]}\n',
        b'{"text": "w1 w3", "spans": [{"start": 0, "end": 2, "label": "PER"}]}\n',
    ):
        assert tune(api, training_file=training, validation_file=upload_text(api, judging)).validation_file
    other = upload_text(api, b'{"text": "w1 w3", "spans": [{"start": 0, "end": 2, "label": "B-PER"}]}\n')
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=training, validation_file=other)
    assert caught.value.code == "unknown_label"


def test_what_is_odd_in_the_files_is_said_first(api: Api) -> None:
    file_id = upload_text(api, labelled(("w1", "good"), ("w2", " Good "), ("w3", "bad")))
    other = upload_text(api, b'{"text": "w4", "label": "bad", "stars": 1}\n')
    job = tune(api, training_file=file_id, validation_file=other)
    with api.openai() as client:
        events = list(client.fine_tuning.jobs.list_events(job.id))[::-1]
    assert [(event.level, event.message) for event in events] == [
        ("info", f"Created fine-tuning job: {job.id}"),
        (
            "warn",
            "training_file: labels that differ by no more than capitals or the form of characters: 'good', 'Good'",
        ),
        ("warn", "validation_file: fields that are not read: stars"),
    ]


def test_a_file_of_another_purpose_is_not_trained_on(api: Api) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=api.upload(b"{}"))
    assert caught.value.param == "training_file"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"max_training_file_bytes": 10}, "training_file_too_large"),
        ({"max_training_examples": 3}, "too_many_examples"),
        ({"max_training_tokens": 20}, "too_many_tokens"),
    ],
)
def test_a_job_is_no_larger_than_allowed(
    api: Api, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], code: str
) -> None:
    settings = api.services.settings.model_copy(update=changes)
    monkeypatch.setattr(api.app.state, "services", dataclasses.replace(api.services, settings=settings))
    file_id = upload_text(api)
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=file_id, validation_file=upload_text(api))
    assert caught.value.code == code


def test_a_tenant_has_no_more_open_jobs_than_allowed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = api.services.settings.model_copy(update={"max_open_trainings_per_tenant": 1})
    monkeypatch.setattr(api.app.state, "services", dataclasses.replace(api.services, settings=settings))
    job = tune(api)
    with pytest.raises(openai.RateLimitError) as caught:
        tune(api)
    assert caught.value.code == "active_jobs_exceeded"
    bad = upload_text(api, b"nonsense\n")
    with pytest.raises(openai.RateLimitError):  # which no file is read for
        tune(api, training_file=bad)
    assert tune(api, who="rival").status == "queued"
    with api.openai() as client:
        client.fine_tuning.jobs.cancel(job.id)
    assert tune(api).status == "queued"


def test_the_same_idempotency_key_is_the_same_job(api: Api) -> None:
    file_id, key = upload_text(api), {"Idempotency-Key": "again"}
    first = tune(api, training_file=file_id, extra_headers=key)
    with api.openai() as client:
        client.fine_tuning.jobs.cancel(first.id)
        client.files.delete(file_id)
    again = tune(api, training_file=file_id, extra_headers=key)
    assert (again.id, again.seed) == (first.id, first.seed)
    with pytest.raises(openai.BadRequestError) as caught:
        tune(api, training_file=file_id, suffix="other", extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"
    assert tune(api, who="rival", extra_headers=key).id != first.id


def test_a_retry_of_the_client_is_the_same_job(api: Api) -> None:
    file_id, retry = upload_text(api), {"x-stainless-retry-count": "1"}
    first = tune(api, training_file=file_id)
    assert tune(api, training_file=file_id, extra_headers=retry).id == first.id
    assert tune(api, training_file=file_id).id != first.id
    with api.services.database.session() as session:
        for job in session.query(TuningJob):
            job.created_at -= 601
    late = tune(api, training_file=file_id, extra_headers=retry)
    assert late.id != first.id
    assert count(api) == 3


def test_a_running_job_says_how_far_it_is(api: Api) -> None:
    job = tune(api)
    claimed = claim(api, job.id)
    progress = {"done": 3, "steps": 9, "epoch": 1, "epochs": 3, "loss": 0.5, "trained_tokens": 70, "seconds_left": 60}
    metrics = {"epoch": 1, "train_loss": 0.5, "valid_accuracy": 0.75}
    with api.services.database.session() as session:
        assert trainings.record_progress(session, job.id, claimed.attempt, progress, seconds_left=60)
        assert trainings.record_epoch(session, job.id, claimed.attempt, 1, "Epoch 1: train loss=0.5000", metrics)
    with api.openai() as client:
        found = client.fine_tuning.jobs.retrieve(job.id)
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert found.status == "running"
    assert found.estimated_finish is not None
    assert found.to_dict()["hmi"]["progress"] == progress  # type: ignore[index]
    assert [event.type for event in events] == ["metrics", "message", "message"]
    assert events[0].data == metrics


def test_a_failed_job_says_why(api: Api) -> None:
    job = tune(api)
    claimed = claim(api, job.id)
    with api.services.database.session() as session:
        training_results.fail(session, claimed, InvalidInput("the loss is no number", param="learning_rate"))
    with api.openai() as client:
        found = client.fine_tuning.jobs.retrieve(job.id)
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.cancel(job.id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.to_dict() == {
        "code": "invalid_input",
        "message": "the loss is no number",
        "param": "learning_rate",
    }
    assert found.finished_at


def test_a_job_is_cancelled_once_and_for_all(api: Api) -> None:
    job = tune(api)
    with api.openai() as client:
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        again = client.fine_tuning.jobs.cancel(job.id)
        assert (again.status, again.fine_tuned_model) == ("cancelled", None)


def test_a_file_is_kept_while_a_job_reads_it(api: Api) -> None:
    file_id = upload_text(api)
    job = tune(api, training_file=file_id)
    with api.openai() as client:
        with pytest.raises(openai.ConflictError) as caught:
            client.files.delete(file_id)
        assert caught.value.code == "file_in_use"
        client.fine_tuning.jobs.cancel(job.id)
        assert client.files.delete(file_id).deleted


def test_jobs_and_events_are_listed_in_pages_newest_first(api: Api) -> None:
    ids = [tune(api).id for _ in range(3)]
    with api.openai() as client:
        assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == ids[::-1]
        client.fine_tuning.jobs.cancel(ids[0])
        said = [event.message for event in client.fine_tuning.jobs.list_events(ids[0], limit=1)]
        assert said == ["The job was cancelled", f"Created fine-tuning job: {ids[0]}"]
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.list(limit=101)
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.list(metadata={"a": "b"})
        assert caught.value.param == "metadata[a]"
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.checkpoints.list(ids[0], after="ftckpt_x")


def test_a_file_whose_content_is_lost_is_the_servers_fault(api: Api) -> None:
    file_id = upload_text(api)
    with api.services.database.session(read_only=True) as session:
        api.services.storage.delete(session.get_one(File, file_id).path)
    with pytest.raises(openai.InternalServerError):
        tune(api, training_file=file_id)


def test_examples_of_openais_own_form_are_taken(api: Api) -> None:
    turns = [("w1 w2", "good"), ("w3", "bad")]
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
        for text, label in turns
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert tune(api, training_file=upload_text(api, content)).status == "queued"
