"""Rotary positions (Su et al., 2021), in the order of halves that Llama's published weights are in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Rotary"]


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """Rotate queries and keys by their positions.

    Attributes:
        cos, sin: `[T, size]`, or `[B, 1, T, size]` where each sequence has positions of its own.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, size: int, theta: float, dtype: torch.dtype) -> Rotary:
        """Of positions int64 `[T]`, or `[B, T]` of each sequence, for heads of `size` values."""
        # The angles in float32 whatever the dtype: bfloat16 cannot tell position 257 from 258.
        rates = 1.0 / theta ** (torch.arange(0, size, 2, device=positions.device).float() / size)  # [size / 2]
        angles = positions[..., None].float() * rates
        both = torch.cat([angles, angles], -1)
        if positions.dim() > 1:
            both = both[:, None]
        return cls(both.cos().to(dtype), both.sin().to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """x `[B, heads, T, size]` -> the same, turned. With fewer tokens than positions x has the last ones."""
        tokens = x.shape[-2]
        cos, sin = self.cos[..., -tokens:, :], self.sin[..., -tokens:, :]
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin
