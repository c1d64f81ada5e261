"""The count of operations, against counts by hand."""

from __future__ import annotations

from benchmarks.flops import forward_flops
from hmi.bench import SHAPES, Shape

TINY = Shape(hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)


def test_one_layer_is_counted_as_by_hand() -> None:
    projections = 4 * 2 * (3 * 4) * 4  # q, k, v and o: 3 tokens, 4 in, 4 out
    attention = 2 * (3 * 3) * 4 * 2  # 9 scores of 4 products in all heads together, twice
    feed_forward = 2 * 2 * (3 * 4) * 8
    pooler = 2 * 4 * 4
    assert forward_flops(TINY, 3, layers=1) == projections + attention + feed_forward + pooler


def test_lora_and_head_are_counted_as_by_hand() -> None:
    lora = 2 * 2 * 2 * (3 * 4 * 5)  # q and v, down and up, rank 5
    head = 2 * 4 * 7
    assert forward_flops(TINY, 3, layers=1, lora_rank=5, labels=7) == forward_flops(TINY, 3, layers=1) + lora + head


def test_loras_of_upper_layers_only_are_counted_where_they_are() -> None:
    without, everywhere = forward_flops(TINY, 3), forward_flops(TINY, 3, lora_rank=5)
    assert forward_flops(TINY, 3, lora_rank=5, lora_layers=1) == (without + everywhere) // 2


def test_last_layer_of_first_tokens_saves_what_follows_q_k_and_v() -> None:
    o, attention, feed_forward = 2 * 4 * 4, 2 * 2 * 3 * 4, 2 * 2 * 4 * 8
    saved = 2 * (o + attention + feed_forward)  # two of three tokens
    assert forward_flops(TINY, 3, first_only=True) == forward_flops(TINY, 3) - saved


def test_bert_base_is_as_large_as_is_known() -> None:
    """85 million weights in its layers, two operations each for every token; attention adds under two percent."""
    weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert 1 < forward_flops(SHAPES["base"], 64) / (2 * 64 * weights) < 1.02
