"""API keys as text: `hmi_<8 character id>_<base62 secret of 32 random bytes>_<crc32>`.

The checksum detects mistyped keys without a query. Only the SHA-256 of the secret is stored: slow hashes protect
guessable passwords, and 256 random bits cannot be guessed.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass, field

from hmi.errors import InvalidInput

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = "hmi"
_ID_LENGTH = 8
_SECRET_LENGTH = 43  # base62 digits that hold 256 bits
_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class KeyText:
    """A well-formed key. `id` is public; `secret` is shown once and not stored."""

    id: str
    secret: str = field(repr=False)

    @property
    def secret_sha256(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @property
    def plaintext(self) -> str:
        body = f"{_PREFIX}_{self.id}_{self.secret}"
        return f"{body}_{_checksum(body)}"


def mint_key() -> KeyText:
    """Return a new random key."""
    return KeyText(
        id="".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH)),
        secret=_base62(int.from_bytes(secrets.token_bytes(32), "big"), _SECRET_LENGTH),
    )


def parse_key(plaintext: str) -> KeyText:
    """Raises `InvalidInput` for malformed text, which the message does not repeat."""
    body, _, checksum = plaintext.rpartition("_")
    prefix, _, rest = body.partition("_")
    key_id, _, secret = rest.partition("_")
    if (
        len(plaintext) > _MAX_LENGTH
        or prefix != _PREFIX
        or len(key_id) != _ID_LENGTH
        or len(secret) < _SECRET_LENGTH
        or not set(key_id + secret) <= set(_ALPHABET)
        or checksum != _checksum(body)
    ):
        raise InvalidInput("this is not an HMI API key (hmi_<id>_<secret>_<checksum>), or a part of it was mistyped")
    return KeyText(key_id, secret)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
