"""Texts and chats of two tenants through the official client, while one of the workers is killed."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion

from api.app import create_app
from hmi.adapters import Adapter
from hmi.adapters.formats import save_adapter
from hmi.adapters.maths import SingleAdapter
from hmi.catalog import JobState, Role, tenants
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hgpt, load_tokenizer
from hmi.spec import read_spec
from tests.adapter_samples import lora_adapter
from tests.apis import serve
from tests.e2e.cluster import Cluster, run_cluster
from tests.tiny import tiny_decoder_folder, tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TENANTS = ("acme", "umbrella")
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@dataclass(frozen=True)
class Shop:
    cluster: Cluster
    clients: dict[str, OpenAI]
    folder: Path
    adapters: dict[str, Adapter]

    def answer(self, who: str, url: str, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run a batch and return the bodies of its answers."""
        batch = self.submit(who, url, bodies)
        self.wait_for(who, batch)
        return self.bodies(who, batch)

    def submit(self, who: str, url: str, bodies: Sequence[dict[str, Any]]) -> str:
        lines = [
            {"custom_id": f"{n:04}", "method": "POST", "url": url, "body": {"model": f"{who}/writer", **body}}
            for n, body in enumerate(bodies)
        ]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        client = self.clients[who]
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        endpoint: Any = url
        return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h").id

    def wait_for(self, who: str, batch: str) -> None:
        def has_ended() -> bool:
            return self.clients[who].batches.retrieve(batch).status in ("completed", "failed")

        self.cluster.wait_until(has_ended, 300, what=f"the end of {batch}")

    def bodies(self, who: str, batch: str) -> list[dict[str, Any]]:
        client = self.clients[who]
        found = client.batches.retrieve(batch)
        assert found.error_file_id is None, client.files.content(found.error_file_id).text
        answers = [json.loads(line) for line in client.files.content(found.output_file_id or "").text.splitlines()]
        return [answer["response"]["body"] for answer in sorted(answers, key=lambda each: each["custom_id"])]

    def expected(self, who: str, text: str, more: int, *, special: bool = True) -> str:
        """Return the text that a plain loop over the tenant's own model generates after the prompt."""
        model, tokenizer = load_hgpt(self.folder / "base"), load_tokenizer(self.folder / "base")
        maths = SingleAdapter.of(self.adapters[who])
        ids = tokenizer.encode(text, add_special_tokens=special).ids
        made: list[int] = []
        with torch.inference_mode():
            while len(made) < more and 3 not in made:
                some = torch.tensor([ids + made])
                states = model.upper(model.embed(some), torch.ones_like(some, dtype=torch.bool), maths)
                made.append(int(model.logits(states[0, -1]).argmax()))
        return tokenizer.decode(ids + [token for token in made if token != 3]).removeprefix(tokenizer.decode(ids))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    source = tiny_decoder_folder(tiny_llama(), tmp_path / "llama")
    (source / "chat_template.jinja").write_text(TEMPLATE)
    convert_pretrained(source, tmp_path / "base")
    spec = read_spec(tmp_path / "base")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(run_cluster(tmp_path, shard_lines=20, queued_timeout_seconds=20, dtype="float32"))
        cluster.site.add_base(spec=spec, folder=tmp_path / "base")
        keys, adapters = {}, {}
        for number, who in enumerate(TENANTS):
            tenant_id = cluster.site.add_tenant(who)
            adapters[who] = lora_adapter(np.random.default_rng(number), 4, spec=spec, sites=spec.sites)
            path = tmp_path / f"{who}.safetensors"
            save_adapter(adapters[who], path)
            cluster.site.add_model(who, "writer", adapter=path.read_bytes())
            with cluster.site.database.session() as session:
                keys[who] = tenants.create_key(session, tenant_id, Role.TENANT)[1]
        url = stack.enter_context(serve(create_app(cluster.site.settings)))
        clients = {who: stack.enter_context(OpenAI(api_key=key, base_url=f"{url}/v1")) for who, key in keys.items()}
        yield Shop(cluster, clients, tmp_path, adapters)


def test_each_tenants_texts_are_generated_by_its_own_model(shop: Shop) -> None:
    shop.cluster.beat()
    shop.cluster.worker()
    prompts = [f"w{n} w{3 * n} w{7 * n % 90}" for n in range(12)]
    for who in TENANTS:
        bodies = shop.answer(
            who, "/v1/completions", [{"prompt": each, "max_tokens": 8, "temperature": 0} for each in prompts]
        )
        found = [Completion.model_validate(body) for body in bodies]
        assert [each.choices[0].text for each in found] == [shop.expected(who, each, 8) for each in prompts]
        assert all(each.usage and each.usage.prompt_tokens == 5 for each in found)
        spent = shop.clients[who].batches.list(limit=1).data[0].usage
        assert spent
        assert (spent.input_tokens, spent.output_tokens) == tuple(
            sum(getattr(each.usage, name) for each in found) for name in ("prompt_tokens", "completion_tokens")
        )
        assert spent.total_tokens == spent.input_tokens + spent.output_tokens > spent.input_tokens
    chats = [{"messages": [{"role": "user", "content": each}], "max_tokens": 8, "temperature": 0} for each in prompts]
    said = [ChatCompletion.model_validate(body) for body in shop.answer("acme", "/v1/chat/completions", chats)]
    assert [each.choices[0].message.content for each in said] == [
        shop.expected("acme", f"{each} ", 8, special=False) for each in prompts
    ]


def test_sampled_texts_are_the_same_when_the_worker_is_killed_and_another_takes_over(shop: Shop) -> None:
    shop.cluster.beat()
    doomed = shop.cluster.worker("--name", "doomed")
    bodies = [{"prompt": f"w{n} w{n + 1}", "max_tokens": 20, "n": 2, "seed": n} for n in range(400)]
    batch = shop.submit("acme", "/v1/completions", bodies)

    def is_midway() -> bool:
        states = [shard.state for shard in shop.cluster.site.shards(batch)]
        return JobState.DONE in states and JobState.LEASED in states

    shop.cluster.wait_until(is_midway, 120, what="a shard's end while another is run")
    assert doomed.end(signal.SIGKILL) == -signal.SIGKILL
    shop.cluster.worker("--name", "heir")
    shop.wait_for("acme", batch)
    found = [[choice["text"] for choice in body["choices"]] for body in shop.bodies("acme", batch)]
    again = [[choice["text"] for choice in body["choices"]] for body in shop.answer("acme", "/v1/completions", bodies)]
    assert len(found) == 400
    assert found == again
    assert sum(one != other for one, other in found) > 300
