"""The API against its own description: made-up requests to every operation, from a fixed seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.apis import Api

_EXAMPLES = 6
_CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_described_whatever_is_asked(api: Api, mode: GenerationMode) -> None:
    """Requests as the description wants them, and requests that break it."""
    schema = schemathesis.openapi.from_dict(api.app.openapi())
    schema.config.update(base_url=api.url)
    seen: Counter[int] = Counter()
    tried = 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # nothing in it could be wrong
        _try_operation(api, operation, mode, seen)
        tried += 1
    assert tried > 10
    assert {200, 400, 404} <= set(seen) if mode is GenerationMode.POSITIVE else 400 in seen


def _try_operation(api: Api, operation: Any, mode: GenerationMode, seen: Counter[int]) -> None:
    @seed(7)
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {api.keys['operator']}"})
        seen[response.status_code] += 1
        case.validate_response(response, checks=_CHECKS)

    run()
