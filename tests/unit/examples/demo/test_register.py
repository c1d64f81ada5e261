"""Existing registrations stay; a contradiction is an error with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from examples.data import DOMAINS
from examples.demo.models import MadeBase
from examples.demo.register import register_bases, register_domains, register_model, register_tenants
from examples.demo.tenants import DemoTenant
from hmi.cli.client import HmiClient
from hmi.errors import Conflict
from hmi.schemas import BaseObject, DomainObject, TenantModelObject, TenantObject
from tests.answers import filled_json

TENANT = DemoTenant("acme", "movies", "lora", 4)


def client(answer: Callable[[httpx.Request], object], status: int = 200) -> HmiClient:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status if request.method == "POST" else 200, json=answer(request))

    return HmiClient("http://api.test", "key", transport=httpx.MockTransport(respond))


def test_only_missing_domains_are_made_and_parents_come_first() -> None:
    made: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> object:
        if request.method == "GET":
            known = {"general": None, "news": "general"}
            return {"data": [filled_json(DomainObject, name=name, parent=parent) for name, parent in known.items()]}
        body = json.loads(request.content)
        made.append((body["name"], body["parent"]))
        return filled_json(DomainObject, **{name: value for name, value in body.items() if value is not None})

    assert register_domains(client(answer)) == len(DOMAINS) - 1
    assert made == [("reviews", "general"), ("movies", "reviews"), ("products", "reviews"), ("tweets", "general")]


def test_only_missing_tenants_are_made() -> None:
    def answer(request: httpx.Request) -> object:
        known, new = [filled_json(TenantObject, name=name) for name in ("operator", "acme")], "zeta"
        return {"data": known} if request.method == "GET" else filled_json(TenantObject, name=new)

    assert register_tenants(client(answer), [TENANT]) == 0
    assert register_tenants(client(answer), [TENANT, DemoTenant("zeta", "news", "lora", 4)]) == 1


@pytest.mark.parametrize(("before", "is_new"), [([], True), ([1], True), ([2], False)])
def test_model_counts_as_new_when_its_revision_moved(tmp_path: Path, before: list[int], is_new: bool) -> None:
    (tmp_path / "adapter.safetensors").touch()

    def answer(request: httpx.Request) -> object:
        models = [filled_json(TenantModelObject, name=TENANT.model, revision=revision) for revision in [*before, 2]]
        return {"data": models[:-1]} if request.method == "GET" else models[-1]

    assert register_model(client(answer), TENANT, tmp_path) is is_new


def test_remedy_is_named_when_a_base_has_other_weights(tmp_path: Path) -> None:
    (tmp_path / "spec.json").touch()
    made = {"minilm-k3": MadeBase(tmp_path, 3, None, distilled=False, reused=False)}

    def answer(request: httpx.Request) -> object:
        if request.method == "GET":
            return {"data": [filled_json(BaseObject, name="minilm-k3")]}
        return {"error": {"message": "minilm-k3 is taken", "type": "conflict", "param": None, "code": "conflict"}}

    with pytest.raises(Conflict, match="minilm-k3 is taken; the data folder is from another version: remove it"):
        register_bases(client(answer, status=400), made)
