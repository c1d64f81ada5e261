"""What decoders are ordered to learn at /v1/fine_tuning/jobs."""

from __future__ import annotations

import dataclasses
import io
import json

import openai
import pytest

from hmi.catalog import bases
from hmi.models.text import ChatTemplate
from hmi.spec import Family
from tests.apis import SPEC, Api, base_files
from tests.unit.api.tuning import add_base, count, row, tune, upload_text


@pytest.fixture(autouse=True)
def base(api: Api) -> None:
    add_base(api)


WRITER = dataclasses.replace(SPEC, family=Family.GPT2, type_vocab_size=0, has_pooler=False, tied=True, k=0)


def continued(*pairs: tuple[str, str]) -> bytes:
    return b"".join(json.dumps({"prompt": a, "completion": b}).encode() + b"\n" for a, b in pairs)


def add_writer(api: Api, template: str | None = None) -> None:
    files = base_files(WRITER)
    if template is not None:
        files["chat.json"] = ChatTemplate(template).to_json().encode()
    artifact = api.services.artifacts.put({name: io.BytesIO(content) for name, content in files.items()})
    with api.services.database.session() as session:
        bases.register_base(session, "writer", artifact, WRITER)


def test_a_decoder_learns_how_texts_go_on_by_a_lora(api: Api) -> None:
    add_writer(api)
    file = upload_text(api, continued(("w1", "w2 w3"), ("w2", "w3")))
    kept = row(api, tune(api, model="writer", training_file=file).id).config
    assert (kept["task"], kept["config"]["kind"], kept["config"]["rank"]) == ("language", "lora", 16)


def chat(*roles: str) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": "w1"} for role in roles]}).encode() + b"\n"


def test_a_chat_is_refused_with_its_line_when_the_template_does_not_take_it(api: Api) -> None:
    add_writer(api, "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}w1")
    good = chat("user", "assistant")
    assert tune(api, model="writer", training_file=upload_text(api, good)).status == "queued"
    with pytest.raises(openai.BadRequestError, match=r"line 2: .*no system role") as caught:
        tune(api, model="writer", training_file=upload_text(api, good + chat("system", "user", "assistant")))
    assert (caught.value.code, caught.value.param) == ("invalid_training_file", "training_file")


def test_a_chat_is_refused_when_the_base_has_no_template(api: Api) -> None:
    add_writer(api)
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        tune(api, model="writer", training_file=upload_text(api, chat("user", "assistant")))


def test_a_decoder_learns_classes_when_it_is_asked_to(api: Api) -> None:
    add_writer(api)
    kept = row(api, tune(api, model="writer", extra_body={"hmi": {"task": "classification"}}).id).config
    assert (kept["task"], kept["config"]["kind"]) == ("classification", "lora")


def test_a_model_is_not_ordered_what_it_cannot_learn(api: Api) -> None:
    add_writer(api)
    for fields, param in (
        ({"model": "writer", "extra_body": {"hmi": {"task": "tokens"}}}, "hmi.task"),
        ({"model": "writer", "extra_body": {"hmi": {"kind": "bottleneck"}}}, "hmi.kind"),
        ({"extra_body": {"hmi": {"task": "language"}}}, "hmi.task"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            tune(api, **fields)
        assert caught.value.param == param
    assert count(api) == 0
