"""The API on a real port, with tenants and their keys, for tests; and small things to upload."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import safetensors.numpy
import structlog
import uvicorn
from fastapi import FastAPI
from openai import OpenAI
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from api.app import create_app
from api.bases.shapes import expected_shapes
from api.services import Services
from hmi.adapters import Activation, Adapter, AdapterKind, Head, Lora, Pooling, Transform
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.catalog import Role, bases, domains, mint_key, models, tenants
from hmi.logs import configure_logs
from hmi.settings import Settings
from hmi.spec import Family, HPLMSpec, MissPolicy, Site
from tests.waiting import wait_until

__all__ = ["SPEC", "Api", "adapter_file", "base_files", "batch_line", "run_api", "serve"]

SPEC = HPLMSpec(
    family=Family.BERT,
    vocab_size=40,
    hidden_size=8,
    layers=2,
    heads=2,
    intermediate_size=16,
    max_positions=12,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    activation="gelu",
    pad_token_id=0,
    k=1,
)


@dataclass(frozen=True)
class Api:
    """A running API. `keys` holds `operator` and every tenant's; acme has the model `acme/sentiment`."""

    url: str
    app: FastAPI
    services: Services
    keys: Mapping[str, str]

    def http(self, who: str = "operator") -> httpx.Client:
        """Close it, or use it as a context manager."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.keys[who]}"}, timeout=20)

    def openai(self, who: str = "acme", **options: Any) -> OpenAI:
        """Strict: an answer of another shape than the client's types raises."""
        strict: dict[str, Any] = {"_strict_response_validation": True, "max_retries": 0}
        return OpenAI(api_key=self.keys[who], base_url=f"{self.url}/v1", **(strict | options))

    def upload(self, *lines: bytes, who: str = "acme", name: str = "in.jsonl") -> str:
        """A batch file's id."""
        with self.openai(who) as client:
            return client.files.create(file=(name, b"".join(lines)), purpose="batch").id

    def submit(self, *lines: bytes, who: str = "acme") -> str:
        """A batch's id."""
        file_id = self.upload(*lines, who=who)
        with self.openai(who) as client:
            return client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h").id


@contextlib.contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run the application on a free port of this machine; its URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), what="the API's start")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextlib.contextmanager
def run_api(settings: Settings, names: Sequence[str] = ("acme", "rival")) -> Iterator[Api]:
    """The API over a migrated catalog, to which the tenants `names` and a base model are added."""
    configure_logs("INFO", as_json=True)
    # A logger that remembers this set-up could not be listened to by a test that comes after, in the same process.
    structlog.configure(cache_logger_on_first_use=False)
    admin_key = mint_key().plaintext
    settings = settings.model_copy(update={"admin_key": type(settings.broker_url)(admin_key)})
    app = create_app(settings)
    services: Services = app.state.services
    keys = {"operator": admin_key}
    artifact = "0" * 64
    with services.database.session() as session:
        bases.register_base(session, "tiny", artifact, SPEC)
        domains.create_domain(session, "reviews")
        for name in names:
            tenant = tenants.create_tenant(session, name)
            keys[name] = tenants.create_key(session, tenant.id, Role.TENANT)[1]
            models.register_model(
                session,
                tenant.id,
                "sentiment",
                base="tiny",
                domain="reviews",
                miss_policy=MissPolicy.EXACT,
                artifact=None,
                summary={},
            )
    with serve(app) as url:
        yield Api(url, app, services, keys)


def batch_line(custom_id: str = "a", url: str = "/v1/embeddings", **changes: object) -> bytes:
    body = {"model": "acme/sentiment", "input": "w1 w2"}
    line = {"custom_id": custom_id, "method": "POST", "url": url, "body": body} | changes
    return json.dumps(line).encode() + b"\n"


def base_files(spec: HPLMSpec = SPEC) -> dict[str, bytes]:
    """A base model's three files, of zeros."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(30))]
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    weights = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(spec).items()}
    return {
        "spec.json": spec.to_json().encode(),
        "model.safetensors": safetensors.numpy.save(weights),
        "tokenizer.json": tokenizer.to_str().encode(),
    }


def adapter_file(folder: Path, seed: int = 0, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    """A LoRA on the upper layer with a head, in HMI's own form."""
    random = np.random.default_rng(seed)

    def array(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    hidden = SPEC.hidden_size
    adapter = Adapter(
        kind=AdapterKind.LORA,
        lora={(1, Site.Q): Lora(a=array(2, hidden), b=array(hidden, 2))},
        bottleneck={},
        adapter_before_norm=False,
        activation=Activation.RELU,
        head=Head(
            pooling=Pooling.CLS,
            transform=Transform.NONE,
            activation=Activation.TANH,
            dense=None,
            dense_bias=None,
            out=array(len(labels), hidden),
            out_bias=array(len(labels)),
            labels=labels,
            multi_label=False,
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(adapter, folder / FILE_NAME)
    return folder / FILE_NAME
