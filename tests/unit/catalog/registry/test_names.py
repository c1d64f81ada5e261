from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.catalog.registry.names import check_json, check_model_name, check_name, check_text, split_model_name
from hmi.errors import InvalidInput


@pytest.mark.parametrize("name", ["a", "0", "acme", "acme-eu_2", "a" * 63])
def test_a_name_is_kept_when_it_is_plain(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "a\n", "é", "a" * 64, "a.b"])
def test_a_name_is_refused_when_it_is_not_plain(name: str) -> None:
    with pytest.raises(InvalidInput, match="parent"):
        check_name(name, param="parent")


@pytest.mark.parametrize("name", ["", "..", "a..b", "a/b", ".a", "a" * 65, "a\n"])
def test_a_models_name_is_refused_when_it_could_be_a_path(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_model_name(name)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", fullmatch=True),
)
def test_a_full_name_is_split_when_both_parts_are_names(tenant: str, model: str) -> None:
    assert split_model_name(f"{tenant}/{model}") == (tenant, model)


@given(st.text())
def test_a_full_name_is_none_or_two_parts_when_it_is_any_text(name: str) -> None:
    parts = split_model_name(name)
    assert parts is None or "/".join(parts) == name


@pytest.mark.parametrize("text", ["a\0", "\ud800", "x" * 11])
def test_text_is_refused_when_not_every_database_keeps_it(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_text(text, param="label", max_length=10)


@pytest.mark.parametrize("value", [{"k": "a\0"}, {"a\0": 1}, [["\udfff"]], [float("nan")]])
def test_json_is_refused_when_not_every_database_keeps_it(value: object) -> None:
    with pytest.raises(InvalidInput):
        check_json(value, param="metadata")


@pytest.mark.parametrize("value", [{}, {"k": "é 😀 \\u0000-looking? no: \\\\"}, [1.5, None, True]])
def test_json_is_kept_when_it_is_text(value: object) -> None:
    check_json(value, param="metadata")
