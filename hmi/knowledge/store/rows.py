"""Encoding rows: from float32 to the stored form (int8 or float16) and back.

int8 is symmetric with one scale per row. The scale is max|row| / 127, rounded up to 17 significant bits: then every
product code x scale is exact in float32, decoding gives the same bits on every machine, and encoding a decoded row
gives the same codes and scale again.

Every function treats each row by itself, so a row does not depend on the rows it is encoded with: an answer may not
depend on a request's batch-mates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.spec import RowDtype

CHUNK_ROWS = 256
"""Rows worked on at a time: the output of one step is still in the core's cache for the next."""

_LARGEST_CODE = np.float32(127)
_SMALLEST_PEAK = np.float32(2.0**-100)  # below it a row is zero: its scale would not be a normal number
_LARGEST_FLOAT16 = np.float32(65504)
# A float16's bits moved into a float32's places have an exponent that is too small by 127 - 15.
_FLOAT16_BITS = np.int32(-0x70002000)  # 0x8fffe000: sign, five bits of exponent, ten of mantissa
_FLOAT16_REBIAS = np.float32(2.0**112)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows in their stored form."""

    rows: NDArray[Any]  # int8 or float16 [n, hidden]
    scales: NDArray[np.float32] | None  # [n] for int8; None for float16

    @classmethod
    def empty(cls, count: int, dtype: RowDtype, hidden_size: int) -> EncodedRows:
        """Return uninitialised rows. Pages that no row was written to take no memory yet."""
        scales = np.empty(count, np.float32) if dtype is RowDtype.INT8 else None
        return cls(np.empty((count, hidden_size), code_dtype(dtype)), scales)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> EncodedRows:
        rows: NDArray[Any] = np.take(self.rows, index, axis=0)
        return EncodedRows(rows, None if self.scales is None else np.take(self.scales, index))

    def put(self, index: NDArray[np.int64] | slice, other: EncodedRows) -> None:
        """Overwrite the rows at `index` with rows of the same dtype."""
        self.rows[index] = other.rows
        if self.scales is not None and other.scales is not None:
            self.scales[index] = other.scales


def code_dtype(dtype: RowDtype) -> np.dtype[Any]:
    return np.dtype(np.int8 if dtype is RowDtype.INT8 else np.float16)


def entry_bytes(dtype: RowDtype, hidden_size: int) -> int:
    """Return the bytes of one n-gram in a table: key, row and, for int8, its scale."""
    return 8 + code_dtype(dtype).itemsize * hidden_size + (4 if dtype is RowDtype.INT8 else 0)


def encode(rows: NDArray[np.float32], dtype: RowDtype) -> EncodedRows:
    """Round float32 rows `[n, hidden]` to the stored form.

    Raises `Corrupt` for a value that is not finite or too large for float16: only broken weights give one, and a table
    must not keep it.
    """
    count, hidden = rows.shape
    encoded = EncodedRows.empty(count, dtype, hidden)
    largest = np.float32(np.finfo(np.float32).max) if dtype is RowDtype.INT8 else _LARGEST_FLOAT16
    for start in range(0, count, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        chunk = rows[part]
        peak = np.maximum(chunk.max(axis=1), -chunk.min(axis=1)) if hidden else np.zeros(len(chunk), np.float32)
        if not (peak <= largest).all():  # a NaN compares false too
            bad = int(np.flatnonzero(~(peak <= largest))[0])
            raise Corrupt(f"row {start + bad} of {count} reaches {peak[bad]}, which {dtype} rows cannot hold")
        if encoded.scales is None:
            encoded.rows[part] = chunk
            continue
        scale = _scale(peak)
        divisor = np.where(scale > 0, scale, np.float32(np.inf))  # a zero row gives zero codes
        quotient = chunk / divisor[:, None]
        np.copyto(encoded.rows[part], np.rint(quotient, out=quotient), casting="unsafe")
        encoded.scales[part] = scale
    return encoded


def _scale(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `peak` / 127 `[n]`, rounded up to 17 significant bits; 0 for a row that counts as zero."""
    scale = peak / _LARGEST_CODE
    scale[peak < _SMALLEST_PEAK] = 0
    bits = scale.view(np.uint32)
    bits += np.uint32(0x7F)
    bits &= np.uint32(0xFFFFFF80)
    return scale


def decode(encoded: EncodedRows) -> NDArray[np.float32]:
    """Return the rows as float32 `[n, hidden]`."""
    rows = np.empty(encoded.rows.shape, np.float32)
    for start in range(0, len(encoded), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        decode_into(encoded.rows[part], None if encoded.scales is None else encoded.scales[part], rows[part])
    return rows


def decode_into(codes: NDArray[Any], scales: NDArray[np.float32] | None, out: NDArray[np.float32]) -> None:
    """Decode a few rows straight into `out` (float32 `[n, hidden]`, C-contiguous), without a copy in between."""
    if scales is not None:
        # Cast, then scale: numpy casts int8 to float32 several times faster alone than inside a product.
        np.copyto(out, codes)
        np.multiply(out, scales[:, None], out=out)
        return
    # numpy converts float16 one value at a time; moving the bits does whole vectors and is as exact.
    bits = out.view(np.int32)
    np.copyto(bits, codes.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _FLOAT16_BITS, out=bits)
    np.multiply(out, _FLOAT16_REBIAS, out=out)


def round_trip(rows: NDArray[np.float32], dtype: RowDtype) -> NDArray[np.float32]:
    """Return rows `[n, hidden]` as a table gives them back; applying it twice changes nothing."""
    return decode(encode(rows, dtype))
