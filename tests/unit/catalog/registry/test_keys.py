from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmi.catalog import mint_key
from hmi.catalog.registry.keys import parse_key
from hmi.errors import InvalidInput


def test_a_key_is_read_back_when_minted() -> None:
    key = mint_key()
    assert parse_key(key.plaintext) == key
    prefix, key_id, secret, checksum = key.plaintext.split("_")
    assert (prefix, len(key_id), len(secret), len(checksum)) == ("hmi", 8, 43, 6)


def test_keys_differ_when_minted_twice() -> None:
    keys = [mint_key() for _ in range(100)]
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 100


def test_the_secret_is_not_shown_when_a_key_is_logged() -> None:
    key = mint_key()
    assert key.secret not in repr(key)
    assert key.secret not in key.secret_sha256


@given(st.integers(0, 62), st.sampled_from(string.ascii_letters + string.digits + "_ "))
def test_a_key_is_refused_when_one_character_differs(place: int, character: str) -> None:
    plaintext = mint_key().plaintext
    place %= len(plaintext)
    changed = plaintext[:place] + character + plaintext[place + 1 :]
    if changed != plaintext:
        with pytest.raises(InvalidInput):
            parse_key(changed)


@given(st.text(max_size=300))
def test_any_text_is_refused_and_not_repeated_when_it_is_no_key(plaintext: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_key(f"#{plaintext}#")
    assert len(plaintext) < 12 or plaintext not in caught.value.message
