from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from hmi.errors import StorageFull, Transient
from hmi.settings import Settings
from tests.apis import Api


def test_the_api_never_imports_torch() -> None:
    heavy = "{'torch', 'transformers', 'peft'} & set(sys.modules)"
    code = f"import api.app, api.__main__, sys; sys.exit(', '.join({heavy}) or 0)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_health_needs_no_key_and_readiness_tries_every_service(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with httpx.Client(base_url=api.url) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        ready = http.get("/readyz")
        assert ready.status_code == 200
        assert set(ready.json()["checks"]) == {"database", "migrations", "broker", "storage"}

        def full(self: object, path: str) -> None:
            raise StorageFull(f"no room left to write {path}")

        monkeypatch.setattr(type(api.services.storage), "create", full)
        not_ready = http.get("/readyz")
    assert not_ready.status_code == 503
    assert not_ready.json() == {
        "status": "not_ready",
        "checks": {"database": "ok", "migrations": "ok", "broker": "ok", "storage": "unavailable"},
    }


def test_the_start_is_refused_with_what_to_do_when_there_is_no_schema(tmp_path: Path) -> None:
    app = create_app(Settings(_env_file=None, data_dir=tmp_path))
    with pytest.raises(Transient, match="hmi db upgrade"):
        app.state.services.prepare()
    app.state.services.close()


def test_docs_need_no_other_host(api: Api) -> None:
    with httpx.Client(base_url=api.url) as http:
        page = http.get("/docs").text
        assert "http://" not in page
        assert "https://" not in page
        linked = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(linked) == 3
        for path in (*linked, "/openapi.json"):
            assert http.get(path).status_code == 200, path


def test_docs_are_served_only_when_they_are_wanted(tmp_path: Path) -> None:
    app = create_app(Settings(_env_file=None, data_dir=tmp_path, docs=False))
    assert app.openapi_url is None
    assert not [route for route in app.routes if "docs" in getattr(route, "path", "")]
    app.state.services.close()


def test_every_operation_is_described_with_its_errors(api: Api) -> None:
    schema = api.app.openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            assert "422" not in operation["responses"]
            if path.startswith("/v1/"):
                assert {"400", "401", "503"} <= set(operation["responses"]), path
    assert "HTTPValidationError" not in schema["components"]["schemas"]
