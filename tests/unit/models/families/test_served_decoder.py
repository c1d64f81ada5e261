"""The serving forward of decoders against `HGpt`: prefill, then token by token, with and without adapters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from hmi.adapters import Adapter
from hmi.adapters.maths import NoAdapters, SharedLora, SingleAdapter
from hmi.adapters.maths.gathered import GatheredAdapters
from hmi.adapters.maths.plan import GatheredPlan
from hmi.adapters.tiers import DeviceTier, pack_adapter
from hmi.knowledge import unpack, window_keys
from hmi.models.families import HGpt, ServedGpt
from hmi.models.layers import PAGE_TOKENS, PagedKvCache, PageGroup
from hmi.spec import Family, HPLMSpec
from tests.adapter_samples import lora_adapter

GPT2 = HPLMSpec(Family.GPT2, 100, 32, 4, 4, 64, 128, 0, 1e-5, "gelu_new", 0, has_pooler=False, tied=True)
LLAMA = HPLMSpec(
    Family.LLAMA, 100, 32, 4, 4, 64, 128, 0, 1e-5, "silu", 0, has_pooler=False, kv_heads=2, head_size=12, rope_theta=1e4
)
LENGTHS = (1, PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1, 40, 3)
MORE = 20  # tokens after each
PARTS: list[list[list[int] | None]] = [[None], [[4], [3, 0, 5, 2, 1]], [[4, 3], [1, 2], [5], [0]]]  # read together


def specs() -> list[HPLMSpec]:

    return [dataclasses.replace(spec, k=k) for spec in (GPT2, LLAMA) for k in (0, 2)]


@functools.cache
def pair(spec: HPLMSpec) -> tuple[HGpt, ServedGpt]:
    def drawn() -> HGpt:
        model = HGpt(spec).requires_grad_(requires_grad=False)
        generator = torch.Generator().manual_seed(9)
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
        return model

    return drawn(), ServedGpt(drawn())


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 100, (length + MORE,), generator=generator) for length in LENGTHS]


def rows_of(model: HGpt | ServedGpt, ids: Tensor) -> Tensor:
    """[T, H] of one sequence's windows"""
    keys = window_keys(ids.numpy(), np.array([len(ids)]), looks_back=True)
    return model.lower(torch.from_numpy(unpack(keys)))


def expected_states(model: HGpt, ids: Tensor, adapter: Adapter | None) -> Tensor:
    """[T, H] of one sequence alone"""
    maths = SingleAdapter.of(adapter) if adapter else NoAdapters()
    hidden = model.merge(rows_of(model, ids)[None]) if model.spec.k else model.embed(ids[None])
    return model.upper(hidden, torch.ones(1, len(ids), dtype=torch.bool), maths)[0]


def tenants(spec: HPLMSpec) -> list[Adapter | None]:
    rng = np.random.default_rng(3)
    return [
        lora_adapter(rng, 4, spec=spec, sites=spec.sites),
        None,
        lora_adapter(rng, 4, spec=spec, sites=spec.sites),
        lora_adapter(rng, 2, spec=spec),
        lora_adapter(rng, 8, spec=spec, sites=spec.sites[-2:]),
        None,
    ]


class Serving:
    """All texts in one pool: prefilled, then decoded token by token. Pages are in random order."""

    def __init__(self, spec: HPLMSpec, adapters: Sequence[Adapter | None]) -> None:
        self.served = pair(spec)[1]
        self._bank = DeviceTier(spec.hidden_size, 8 * 1024**2, "cpu", torch.float32)
        packed = [pack_adapter(each, spec.hidden_size, torch.float32) if each else None for each in adapters]
        self._residents = [self._bank.insert_pinned(f"{n}", each) if each else None for n, each in enumerate(packed)]
        self._lora = any(adapters)
        most = -(-(max(LENGTHS) + MORE) // PAGE_TOKENS)
        count = most * len(LENGTHS)
        self.pages = PagedKvCache(spec, count, "cpu", torch.float32)
        self.table = torch.randperm(count, generator=torch.Generator().manual_seed(1)).view(len(LENGTHS), most)

    def adapters(self, tokens: int) -> GatheredAdapters | None:
        if not self._lora:
            return None
        plan = GatheredPlan(self._residents, "cpu", unfused=range(self.served.spec.layers))
        return GatheredAdapters(self._bank.arena, plan)

    def lower(self, ids: Tensor, positions: Tensor, sequences: list[Tensor]) -> Tensor:
        if not self.served.spec.k:
            return self.served.embed(ids, positions)
        rows = torch.zeros(*ids.shape, self.served.spec.hidden_size)
        for row, sequence in enumerate(sequences):
            some = rows_of(self.served, sequence)
            some = some[-ids.shape[1] :] if ids.shape[1] == 1 else some
            rows[row, : len(some)] = some
        return self.served.merge(rows, positions)

    def read(self) -> Tensor:
        sequences = [text[:length] for text, length in zip(texts(), LENGTHS, strict=True)]
        ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        mask = positions < torch.tensor(LENGTHS)[:, None]
        places = torch.cat(
            [
                self.table[row, torch.arange(length) // PAGE_TOKENS] * PAGE_TOKENS + torch.arange(length) % PAGE_TOKENS
                for row, length in enumerate(LENGTHS)
            ]
        )
        hidden = self.lower(ids, positions, sequences)
        return self.served.prefill(hidden, mask, self.pages, places, self.adapters(ids.shape[1]))

    def decode_next(self, done: int) -> Tensor:
        """One more token of each, `done` after the first."""
        lengths = torch.tensor(LENGTHS) + done
        sequences = [text[: length + 1] for text, length in zip(texts(), lengths.tolist(), strict=True)]
        ids = torch.stack([sequence[-1:] for sequence in sequences])
        hidden = self.lower(ids, lengths[:, None], sequences)
        own = self.table.gather(1, (lengths // PAGE_TOKENS)[:, None])[:, 0]
        places = own * PAGE_TOKENS + lengths % PAGE_TOKENS
        parts = [self._part(rows, lengths) for rows in PARTS[done % len(PARTS)]]
        return self.served.decode(hidden, lengths, self.pages, places, parts, self.adapters(1))

    def _part(self, rows: list[int] | None, lengths: Tensor) -> PageGroup:
        some = torch.arange(len(LENGTHS)) if rows is None else torch.tensor(rows)
        used = int(lengths[some].max()) // PAGE_TOKENS + 1
        return PageGroup.of(None if rows is None else some, self.table[some, :used], lengths[some] + 1, torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize("spec", specs(), ids=lambda spec: f"{spec.family}-k{spec.k}")
@pytest.mark.parametrize("adapted", [False, True])
def test_states_are_those_of_each_sequence_alone(spec: HPLMSpec, adapted: bool) -> None:
    model = pair(spec)[0]
    adapters = tenants(spec) if adapted else [None] * len(LENGTHS)
    serving = Serving(spec, adapters)
    found = [[states[:length]] for states, length in zip(serving.read(), LENGTHS, strict=True)]
    for done in range(MORE):
        for states, parts in zip(serving.decode_next(done), found, strict=True):
            parts.append(states)
    for text, parts, adapter in zip(texts(), found, adapters, strict=True):
        expected = expected_states(model, text, adapter)
        torch.testing.assert_close(torch.cat(parts), expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(serving.served.logits(expected), model.logits(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("spec", [spec for spec in specs() if spec.k], ids=lambda spec: spec.family)
def test_rows_are_those_of_the_domain_when_it_has_a_delta(spec: HPLMSpec) -> None:

    model, served = pair(spec)
    whole = lora_adapter(np.random.default_rng(5), 4, spec=dataclasses.replace(spec, k=0), sites=spec.sites)
    delta = dataclasses.replace(whole, lora={key: part for key, part in whole.lora.items() if key[0] < spec.k})
    ids = texts()[4]
    windows = torch.from_numpy(unpack(window_keys(ids.numpy(), np.array([len(ids)]), looks_back=True)))
    found = served.lower(windows, SharedLora.of(delta, torch.device("cpu"), torch.float32))
    torch.testing.assert_close(found, model.lower(windows, SingleAdapter.of(delta)), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(found, model.lower(windows), atol=1e-2)
