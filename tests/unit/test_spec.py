from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.errors import Corrupt
from hmi.spec import Family, HPLMSpec, RowDtype, Site


def make_spec(**changes: Any) -> HPLMSpec:
    spec = HPLMSpec(
        family=Family.BERT,
        vocab_size=100,
        hidden_size=12,
        layers=4,
        heads=3,
        intermediate_size=24,
        max_positions=16,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        activation="gelu",
        pad_token_id=0,
    )
    return dataclasses.replace(spec, **changes)


@given(k=st.integers(0, 3), row_dtype=st.sampled_from(RowDtype), has_pooler=st.booleans())
def test_spec_is_the_same_when_read_back(k: int, row_dtype: RowDtype, has_pooler: bool) -> None:
    spec = make_spec(k=k, row_dtype=row_dtype, has_pooler=has_pooler)
    assert HPLMSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 4),
        ("k", -1),
        ("heads", 0),
        ("heads", 5),
        ("vocab_size", "100"),
        ("vocab_size", 0),
        ("layers", 4.0),
        ("max_positions", True),
        ("hidden_size", -12),
        ("pad_token_id", 100),
        ("layer_norm_eps", 0.0),
        ("layer_norm_eps", float("nan")),
        ("family", "t5"),
        ("row_dtype", "int4"),
        ("colour", "blue"),
    ],
)
def test_spec_is_refused_when_a_field_is_invalid(field: str, value: object) -> None:
    raw = json.loads(make_spec().to_json())
    raw[field] = value
    with pytest.raises(Corrupt, match="not an hPLM spec"):
        HPLMSpec.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '"bert"', "{" * 100_000, '{"family":' * 100_000])
def test_spec_is_refused_when_the_text_is_no_spec(text: str) -> None:
    with pytest.raises(Corrupt, match="not an hPLM spec"):
        HPLMSpec.from_json(text)


def test_vocabulary_must_fit_a_key_when_windows_are_looked_up() -> None:
    assert make_spec(vocab_size=2**21).k == 0
    assert make_spec(vocab_size=2**21 - 1, k=1).k == 1
    with pytest.raises(ValueError, match="vocabulary"):
        make_spec(vocab_size=2**21, k=1)


def test_an_estimator_needs_rows_that_are_looked_up() -> None:
    spec = make_spec(k=2, estimator_size=768)
    assert HPLMSpec.from_json(spec.to_json()) == spec
    assert spec.ordinary == make_spec(k=0)
    for k, size in ((0, 8), (2, -1), (2, 1.0)):
        with pytest.raises(ValueError, match="estimator_size"):
            make_spec(k=k, estimator_size=size)


@pytest.mark.parametrize("site", make_spec().sites)
def test_site_shape_is_in_then_out(site: Site) -> None:
    expected = {Site.FC1: (12, 24), Site.FC2: (24, 12)}.get(site, (12, 12))
    assert make_spec().site_shape(site) == expected


def make_llama(**changes: Any) -> HPLMSpec:
    usual = {"family": Family.LLAMA, "type_vocab_size": 0, "kv_heads": 1, "head_size": 5, "rope_theta": 1e4}
    return make_spec(**usual | {"eos_token_ids": (2, 3)} | changes)


def test_decoder_is_the_same_when_read_back_and_its_heads_share_keys() -> None:
    spec = make_llama(k=2)
    assert HPLMSpec.from_json(spec.to_json()) == spec
    shapes = [spec.site_shape(site) for site in (Site.Q, Site.K, Site.V, Site.O, Site.GATE)]
    assert shapes == [(12, spec.heads * 5), (12, 5), (12, 5), (spec.heads * 5, 12), (12, 24)]
    assert Site.GATE not in make_spec().sites


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_heads", 0),
        ("kv_heads", 4.0),
        ("kv_heads", 5),
        ("head_size", True),
        ("rope_theta", None),
        ("rope_theta", 0.5),
        ("eos_token_ids", (100,)),
        ("type_vocab_size", -1),
    ],
)
def test_decoder_is_refused_when_its_sizes_are_impossible(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"keys and values" if value == 5 else field):
        make_llama(**{field: value})


@pytest.mark.parametrize("changes", [{"rope_theta": 1e4}, {"type_vocab_size": 0}])
def test_encoder_is_refused_with_what_decoders_have(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        make_spec(**changes)
