"""Attention over padded batches, and rotary positions (Su et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention without dropout.

    With gradients it runs as matrix products: on a CPU the fused kernel's backward pass takes six times as long for
    sentences of a few dozen tokens.

    Args:
        q: [B, heads, T, size], like the result.
        k: [B, key heads, S, size], like v; the number of heads is a multiple of the number of key heads.
        mask: bool, broadcast to [B, heads, T, S]; True where a token is attended to.
    """
    shared = q.shape[1] // k.shape[1]
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=shared > 1)
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, heads, T, S]
    context: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    return context


def causal_mask(mask: Tensor) -> Tensor:
    """Each token attends to the real tokens up to itself: mask bool [B, T] -> bool [B, 1, T, T]."""
    tokens = mask.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    # A padding token attends to itself, because a softmax over nothing is NaN.
    itself = torch.eye(tokens, dtype=torch.bool, device=mask.device)
    return ((causal & mask[:, None, :]) | itself)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """Rotates queries and keys by their positions. Halves are ordered as in Llama's published weights."""

    cos: Tensor  # [T, size], or [B, 1, T, size] where each sequence has its own positions
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, size: int, theta: float, dtype: torch.dtype) -> Rotary:
        """Make the rotation of positions int64 [T] or [B, T], for heads of `size` values."""
        # The angles are float32 for every dtype: bfloat16 does not distinguish position 257 from 258.
        rates = 1.0 / theta ** (torch.arange(0, size, 2, device=positions.device).float() / size)  # [size / 2]
        angles = positions[..., None].float() * rates  # [..., T, size / 2]
        both = torch.cat([angles, angles], -1)
        if positions.dim() > 1:
            both = both[:, None]
        return cls(both.cos().to(dtype), both.sin().to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate x [B, heads, T, size]. With fewer tokens than positions x holds the last tokens."""
        tokens = x.shape[-2]
        cos, sin = self.cos[..., -tokens:, :], self.sin[..., -tokens:, :]
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin
