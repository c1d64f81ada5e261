"""Texts continued by the engine: token for token what transformers generates, whoever runs beside them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor

from hmi.adapters import Adapter
from hmi.adapters.formats import read_adapter, save_adapter
from hmi.adapters.maths import NoAdapters, SingleAdapter
from hmi.bench import OneBase
from hmi.engine import Engine, EngineConfig
from hmi.engine.decode.scheduler import GenerationScheduler, SequenceState
from hmi.errors import ContextTooLong, HmiError, InvalidInput, Overloaded
from hmi.items import Finish, Generation, GenerationParams, Item, ModelRef, Sampling, Task
from hmi.knowledge import unpack, window_keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import round_trip
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hgpt
from hmi.models.layers import page_bytes
from hmi.spec import read_spec
from tests.adapter_samples import lora_adapter
from tests.tiny import TINY_WORDS, tiny_decoder_folder, tiny_gpt2, tiny_llama

GREEDY = Sampling(temperature=0)
MAKERS: dict[str, Callable[..., Any]] = {"gpt2": tiny_gpt2, "llama": tiny_llama}
CONFIG = EngineConfig(
    device="cpu", dtype="float32", device_threads=1, device_adapter_bytes=4 * 1024**2, cache_bytes=4 * 1024**2
)


def prompts(count: int = 16) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(5)
    return [tuple(rng.integers(4, 100, 1 + 3 * number).tolist()) for number in range(count)]


class Site:
    """Base artifacts of one family at several k, four tenants' adapters, and what each text should become."""

    def __init__(self, folder: Path, family: str) -> None:
        self.folder = folder
        self.theirs = MAKERS[family]()
        source = tiny_decoder_folder(self.theirs, folder / "source")
        for k in (0, 2):
            convert_pretrained(source, folder / f"k{k}", k=k)
        self.adapters: dict[str, Adapter] = {}
        for k in (0, 2):
            spec = read_spec(self.base(k))
            rng = np.random.default_rng(k)
            for number, rank in enumerate((4, 4, 8, 2)):
                sites = spec.sites if number % 2 else spec.sites[:4]
                adapter = lora_adapter(rng, rank, spec=spec, sites=sites)
                self.adapters[f"k{k}-{number}"] = adapter
                save_adapter(adapter, folder / f"k{k}-{number}.safetensors")

    def base(self, k: int) -> Path:
        return self.folder / f"k{k}"

    def engine(self, k: int = 0, **changes: Any) -> Engine:
        spec = read_spec(self.base(k))
        tree = KnowledgeTree(0, {"general": None}, {}, spec.row_dtype, spec.hidden_size)
        source = OneBase("base", self.base(k), tree)
        source.adapters.update({name: self.folder / f"{name}.safetensors" for name in self.adapters})
        return Engine(dataclasses.replace(CONFIG, **changes), source)

    def expected(self, k: int, prompt: Sequence[int], adapter: str | None, more: int) -> list[int]:
        """A plain loop: the whole text read anew for each token, alone."""
        model = load_hgpt(self.base(k))
        maths = SingleAdapter.of(self.adapters[adapter]) if adapter else NoAdapters()
        ids = list(prompt)
        while len(ids) < len(prompt) + more:
            ids.append(int(plain_logits(model, torch.tensor(ids), maths)[-1].argmax()))
            if ids[-1] in model.spec.eos_token_ids:
                break
        return ids[len(prompt) :]


@torch.inference_mode()
def plain_logits(model: Any, ids: Tensor, maths: Any) -> Tensor:
    """[T, vocabulary]; rows are rounded as stored ones are."""
    if model.spec.k:
        windows = unpack(window_keys(ids.numpy(), np.array([len(ids)]), looks_back=True))
        rows = round_trip(model.lower(torch.from_numpy(windows)).numpy(), model.spec.row_dtype)
        hidden = model.merge(torch.from_numpy(rows)[None])
    else:
        hidden = model.embed(ids[None])
    found: Tensor = model.logits(model.upper(hidden, torch.ones(1, len(ids), dtype=torch.bool), maths))[0]
    return found


@pytest.fixture(scope="module", params=list(MAKERS))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp(request.param), request.param)


def item(prompt: Sequence[int], adapter: str | None = None, **params: Any) -> Item:
    usual: dict[str, Any] = {"max_tokens": 24, "sampling": GREEDY}
    wished = GenerationParams(**usual | params)
    return Item(ModelRef("base", "general", adapter), Task.GENERATE, tokens=tuple(prompt), params=wished)


def answers(engine: Engine, items: Sequence[Item]) -> list[Generation]:
    outcomes = engine.submit(items).result(timeout=300)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    results = [outcome.result for outcome in outcomes]
    assert all(isinstance(each, Generation) for each in results)
    return results  # type: ignore[return-value]


def test_texts_are_those_of_transformers_token_for_token(site: Site) -> None:
    some = [prompt[:60] for prompt in prompts()]
    with site.engine() as engine:
        found = answers(engine, [item(prompt, max_tokens=64) for prompt in some])
    for prompt, each in zip(some, found, strict=True):
        ids = torch.tensor([prompt])
        made = site.theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        expected = made[0, len(prompt) :].tolist()
        assert list(each.tokens) == expected
        assert each.finish is (Finish.STOP if expected[-1] == 3 else Finish.LENGTH)


TARGETS: dict[str, list[Any]] = {
    "gpt2": [["c_attn"], ["c_attn", "c_fc"], ["attn.c_proj", "mlp.c_proj"], "all-linear"],
    "llama": [["q_proj", "v_proj"], ["gate_proj", "up_proj"], ["o_proj", "down_proj"], "all-linear"],
}


def test_texts_are_those_of_peft_token_for_token(site: Site, tmp_path: Path) -> None:
    """Adapters that PEFT saved, each tenant with its own, in one batch."""
    family = site.theirs.config.model_type
    turned = family == "gpt2"  # its weights are [in, out]

    def settings(rank: int, targets: Any, by_root: bool = False) -> LoraConfig:
        return LoraConfig(
            r=rank,
            lora_alpha=3 * rank,
            use_rslora=by_root,
            task_type="CAUSAL_LM",
            target_modules=targets,
            fan_in_fan_out=turned,
        )

    model: Any = get_peft_model(MAKERS[family](), settings(4, TARGETS[family][0]))
    for number, targets in enumerate(TARGETS[family]):
        model.add_adapter(f"t{number}", settings(2 + 2 * number, targets, number == 1))
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(tmp_path)
    spec = read_spec(site.base(0))
    for number in range(4):
        adapter = read_adapter(tmp_path / f"t{number}", spec)
        save_adapter(adapter, site.folder / f"peft-{number}.safetensors")
        site.adapters[f"peft-{number}"] = adapter
    asked = [(prompt, number % 4) for number, prompt in enumerate(prompts(16))]
    with site.engine() as engine:
        found = answers(engine, [item(prompt, f"peft-{tenant}", max_tokens=64) for prompt, tenant in asked])
    for (prompt, tenant), each in zip(asked, found, strict=True):
        model.set_adapter(f"t{tenant}")
        ids = torch.tensor([prompt])
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0
        )
        assert list(each.tokens) == made[0, len(prompt) :].tolist()
    assert len({each.tokens for each in found}) > 4


@pytest.mark.parametrize("k", [0, 2])
def test_each_tenant_has_its_own_adapter_in_reading_and_continuing(site: Site, k: int) -> None:
    tenants = [None, *(f"k{k}-{number}" for number in range(4))]
    asked = [(prompt, tenants[number % 5]) for number, prompt in enumerate(prompts(10))]
    with site.engine(k) as engine:
        found = answers(engine, [item(prompt, adapter) for prompt, adapter in asked])
    expected = [site.expected(k, prompt, adapter, 24) for prompt, adapter in asked]
    assert [list(each.tokens) for each in found] == expected
    assert len({tuple(each) for each in expected}) >= 5


def test_nothing_fails_when_the_cache_holds_a_tenth_of_what_is_needed(site: Site) -> None:
    spec = read_spec(site.base(0))
    asked = [item(prompt, max_tokens=40) for prompt in prompts(16)]
    needed = sum(-(-(len(each.tokens or ()) + 40) // 16) for each in asked)
    with site.engine() as engine:
        roomy = answers(engine, asked)
        assert engine.stats().preemptions == 0
    with site.engine(cache_bytes=page_bytes(spec, torch.float32) * (needed // 10)) as engine:
        found = answers(engine, asked)
        assert engine.stats().preemptions > 0
    assert [each.tokens for each in found] == [each.tokens for each in roomy]


arrivals = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=10)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=arrivals, rows=st.integers(1, 4), pages=st.integers(4, 12))
def test_a_text_is_the_same_whoever_comes_and_goes_beside_it(
    site: Site, drawn: list[tuple[int, int, int]], rows: int, pages: int
) -> None:
    """Submitted one by one while others run, in little room."""
    some = prompts(10)
    tenants = [None, None, *(f"k2-{number}" for number in range(4))]
    budget = page_bytes(read_spec(site.base(2)), torch.float32) * pages
    with site.engine(2, generated_rows=rows, cache_bytes=budget) as engine:
        futures = [
            engine.submit([item(some[which], tenants[tenant], max_tokens=more)]) for which, tenant, more in drawn
        ]
        wait(futures)
        found = [future.result()[0].result for future in futures]
    for (which, tenant, more), each in zip(drawn, found, strict=True):
        assert isinstance(each, Generation)
        assert list(each.tokens) == site.expected(2, some[which], tenants[tenant], more)


def test_drawn_texts_depend_on_their_seed_alone(site: Site) -> None:
    def asked(seed: int) -> Item:
        return item(prompts()[5], "k0-1", sampling=Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=seed))

    with site.engine() as engine:
        (alone,) = answers(engine, [asked(1)])
        beside = answers(engine, [asked(seed) for seed in (3, 2, 1, 1)])
    assert beside[2].tokens == beside[3].tokens == alone.tokens
    assert len({each.tokens for each in beside}) == 3


def test_chances_are_those_of_the_plain_model(site: Site) -> None:
    prompt = prompts()[7]
    model = load_hgpt(site.base(0))
    with site.engine() as engine:
        (found,) = answers(engine, [item(prompt, max_tokens=6, logprobs=3, echo=True)])
        (scored,) = answers(engine, [item(prompt, max_tokens=0, logprobs=0, echo=True)])
    ids = torch.tensor([*prompt, *found.tokens])
    expected = plain_logits(model, ids, NoAdapters()).log_softmax(-1)
    told = found.logprobs
    assert told is not None
    assert told.ids.tolist() == ids.tolist()
    assert told.best_ids.shape == told.best_logprobs.shape == (len(ids), 3)
    assert np.isnan(told.logprobs[0])
    own = expected[:-1].gather(1, ids[1:, None])[:, 0]
    best = expected[:-1].topk(3)
    assert told.logprobs[1:] == pytest.approx(own.numpy(), abs=1e-4)
    assert told.best_ids[1:].tolist() == best.indices.tolist()
    assert told.best_logprobs[1:] == pytest.approx(best.values.numpy(), abs=1e-4)
    assert [told.token_bytes.of(token) for token in range(5, 100)] == [word.encode() for word in TINY_WORDS]
    assert scored.tokens == ()
    assert scored.text == " ".join(f"w{token - 5}" for token in prompt if token > 4)
    assert scored.logprobs is not None
    assert scored.logprobs.ids.tolist() == list(prompt)
    assert scored.logprobs.best_ids.shape == (len(prompt), 0)
    np.testing.assert_array_equal(scored.logprobs.logprobs, told.logprobs[: len(prompt)])


def test_what_is_told_takes_few_bytes_for_each_token(site: Site) -> None:
    """And none but those of its arrays: what tokens stand for is one table for all texts."""
    with site.engine() as engine:
        found = answers(engine, [item(prompt, max_tokens=9, logprobs=5, echo=True) for prompt in prompts(4)])
    told = [each.logprobs for each in found if each.logprobs is not None]
    assert len(told) == 4
    assert len({id(each.token_bytes) for each in told}) == 1
    for each in told:
        arrays = (each.ids, each.logprobs, each.best_ids, each.best_logprobs)
        assert sum(array.nbytes for array in arrays) == 48 * len(each.ids)
        assert all(array.base is None or array.base.nbytes == array.nbytes for array in arrays)


def test_texts_beside_each_other_are_told_as_much_of_as_each_asked_for(site: Site) -> None:
    parameters: list[dict[str, Any]] = [{"logprobs": 4}, {}, {"logprobs": 0}, {"logprobs": 2}]
    with site.engine() as engine:
        found = answers(engine, [item(prompts()[5], max_tokens=3, ignore_eos=True, **params) for params in parameters])
    most, none, own, few = (each.logprobs for each in found)
    assert none is None
    assert most is not None
    assert own is not None
    assert few is not None
    assert [each.best_ids.shape for each in (most, own, few)] == [(3, 4), (3, 0), (3, 2)]
    assert few.best_ids.tolist() == most.best_ids[:, :2].tolist()
    assert most.ids.tolist() == own.ids.tolist() == few.ids.tolist() == list(found[1].tokens)


def test_a_stop_string_ends_a_text_and_is_not_in_it(site: Site) -> None:
    prompt = prompts()[4]
    with site.engine() as engine:
        (whole,) = answers(engine, [item(prompt, max_tokens=12, ignore_eos=True)])
        words = whole.text.split()
        stop = words[6]
        (found,) = answers(engine, [item(prompt, max_tokens=12, ignore_eos=True, stop=("nowhere", stop))])
    assert found.finish is Finish.STOP
    assert found.text == whole.text[: whole.text.index(stop)]
    assert whole.tokens[: len(found.tokens)] == found.tokens
    assert len(whole.tokens) == 12


def test_a_text_ends_where_the_model_does(site: Site) -> None:
    most = read_spec(site.base(0)).max_positions
    with site.engine() as engine:
        (found,) = answers(engine, [item([7] * (most - 5), max_tokens=50, ignore_eos=True)])
        assert (len(found.tokens), found.finish) == (5, Finish.LENGTH)
        outcomes = engine.submit([item([7] * most), item([7] * (most + 1)), item([5, 6])]).result()
    assert [type(outcome.error) for outcome in outcomes] == [ContextTooLong, ContextTooLong, type(None)]


def test_one_texts_fault_is_its_own(site: Site) -> None:
    asked = [item(prompts()[3]), item(prompts()[3], "gone"), item([]), item(prompts()[4], "k0-0")]
    with site.engine() as engine:
        outcomes = engine.submit(asked).result()
        expected = answers(engine, [asked[0], asked[3]])
        embedded = engine.submit([Item(ModelRef("base", "general", None), Task.EMBED, tokens=(5, 6))]).result()[0]
    assert [(each.error is None) for each in outcomes] == [True, False, False, True]
    assert [outcomes[0].result, outcomes[3].result] == expected
    assert isinstance(embedded.error, InvalidInput)


def test_a_text_ends_where_the_pool_does_and_a_prompt_that_it_cannot_hold_is_refused(site: Site) -> None:
    budget = page_bytes(read_spec(site.base(0)), torch.float32) * 2
    with site.engine(cache_bytes=budget) as engine:
        items = [item([5] * length, max_tokens=100, ignore_eos=True) for length in (20, 31, 32, 33)]
        outcomes = engine.submit(items).result()
    for outcome, count in zip(outcomes, (12, 1), strict=False):
        assert isinstance(outcome.result, Generation)
        assert (len(outcome.result.tokens), outcome.result.finish) == (count, Finish.LENGTH)
    assert [isinstance(outcome.error, Overloaded) for outcome in outcomes] == [False, False, True, True]


def test_what_nobody_waits_for_is_not_run_on(site: Site) -> None:
    engine = site.engine()
    future = engine.submit([item(prompts()[2], max_tokens=100, ignore_eos=True) for _ in range(50)])
    engine.close(drain=False)
    assert all(each.result is not None or isinstance(each.error, HmiError) for each in future.result(timeout=60))


def test_submissions_wait_apart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[SequenceState[Any]] = []
    add = GenerationScheduler.add

    def noted(roster: GenerationScheduler[Any], member: SequenceState[Any]) -> None:
        came.append(member)
        add(roster, member)

    monkeypatch.setattr(GenerationScheduler, "add", noted)
    with site.engine() as engine:
        wait(
            [
                engine.submit([item(prompt, max_tokens=2)] * count)
                for prompt, count in zip(prompts(2), (3, 4), strict=True)
            ]
        )
    assert sorted(Counter(member.group for member in came).values()) == [3, 4]


@pytest.mark.parametrize("params", [{"max_tokens": -1}, {"stop": ("a", "")}, {"logprobs": 21}])
def test_wish_is_refused_by_name_when_it_makes_no_sense(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        GenerationParams(**params)
    assert caught.value.param == next(iter(params))
