from __future__ import annotations

import hmi.errors
from hmi.errors import AdapterRefused, Conflict, HmiError, InvalidInput, NotFound, Overloaded, StorageFull, Transient
from hmi.jobs import error_detail, http_status


def test_every_error_has_a_number_that_is_an_error() -> None:
    for name in hmi.errors.__all__:
        assert 400 <= http_status(getattr(hmi.errors, name)("why")) < 600


def test_numbers_are_those_of_openai() -> None:
    numbers = {InvalidInput: 400, AdapterRefused: 400, NotFound: 404, Conflict: 409, Overloaded: 429}
    numbers |= {StorageFull: 507, Transient: 503, HmiError: 500}
    assert {cls: http_status(cls("why")) for cls in numbers} == numbers
    assert http_status(InvalidInput("why", code="request_too_large")) == 413


def test_a_number_is_inherited_when_a_subclass_has_none() -> None:
    class Finer(NotFound):
        pass

    assert http_status(Finer("why")) == 404


def test_the_envelope_has_all_four_keys() -> None:
    assert error_detail(InvalidInput("why")).envelope() == {
        "error": {"message": "why", "type": "invalid_request_error", "param": None, "code": "invalid_input"}
    }


def test_a_message_can_be_written_when_it_quotes_half_a_surrogate_pair() -> None:
    message = error_detail(InvalidInput("no field \ud800")).message
    assert message.encode() == b"no field \\ud800"
