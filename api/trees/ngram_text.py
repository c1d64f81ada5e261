"""N-grams as text, with a base model's tokenizer."""

from __future__ import annotations

from tokenizers import Tokenizer

from hmi.knowledge import Keys, unpack
from hmi.schemas import NgramText

key_pattern = r"^[0-7][0-9a-f]{15}$"  # 63 bits in hex


def name_of(key: int) -> str:
    """A packed key in hex: JSON's numbers are not wide enough everywhere."""
    return f"{key:016x}"


def key_of(name: str) -> int:
    """The packed key of a name that fits `key_pattern`."""
    return int(name, 16)


class NgramReader:
    """Turn packed keys into tokens and text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def read(self, keys: Keys, counts: list[float]) -> list[NgramText]:
        """One for each of the keys `[n]`, in their order."""
        return [
            NgramText(id=name_of(key), text=self._text(ids), tokens=[self._token(each) for each in ids], count=count)
            for key, ids, count in zip(keys.tolist(), unpack(keys).tolist(), counts, strict=True)
        ]

    def _token(self, token_id: int) -> str | None:
        if token_id < 0:
            return None
        found: str | None = self._tokenizer.id_to_token(token_id)
        # A model may have more rows of embeddings than its tokenizer has tokens.
        return f"<{token_id}>" if found is None else found

    def _text(self, ids: list[int]) -> str:
        present = [each for each in ids if each >= 0]
        if any(self._tokenizer.id_to_token(each) is None for each in present):
            return " ".join(str(self._token(each)) for each in present)
        text: str = self._tokenizer.decode(present, skip_special_tokens=False)
        return text or " ".join(str(self._token(each)) for each in present)
