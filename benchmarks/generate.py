"""Continuing texts of many tenants together, beside transformers and PEFT.

    python -m benchmarks.generate --json
    python -m benchmarks.generate --quick             # under a minute: that everything runs

SmolLM2-135M's shape with seeded weights: 32 sequences of 16 tenants, 128 tokens in, 64 out, and for each tenant a LoRA
of rank 16 on q and v. Rounds of all contenders alternate in one run, in one process with one dtype:

- `hmi`: token ids submitted to outcomes received, at k = 0, where every layer is computed;
- `per_tenant`: PEFT on transformers, one tenant's sequences after the other's;
- `base`: transformers alone, without adapters, all sequences in one batch;
- `peft`: PEFT's mixed batch, `adapter_names`.

JSON: `ratio_vs_per_tenant`, `ratio_vs_base`, `ratio_vs_peft`: how many times as many tokens a second HMI generates.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks.command import as_table, make_parser  # noqa: E402
from benchmarks.harness import alternate, machine, synchronise, versions  # noqa: E402
from benchmarks.serving import results  # noqa: E402
from hmi.adapters.formats import read_adapter, save_adapter  # noqa: E402
from hmi.bench import OneBase  # noqa: E402
from hmi.devices import resolve_device, resolve_dtype  # noqa: E402
from hmi.engine import Engine, EngineConfig  # noqa: E402
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task  # noqa: E402
from hmi.models.convert import convert_pretrained  # noqa: E402
from hmi.spec import read_spec  # noqa: E402

_WORDS = 49152
_SHAPE = {
    "vocab_size": _WORDS,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
_RANK = 16
_BASE = "base"


@dataclass(frozen=True, slots=True)
class Plan:
    sequences: int = 32
    tenants: int = 16
    read: int = 128
    made: int = 64
    rounds: int = 5
    layers: int = 30

    def tenant(self, row: int) -> int:
        return row % self.tenants

    @property
    def tokens(self) -> int:
        return self.sequences * self.made


QUICK = Plan(sequences=6, tenants=3, read=12, made=4, rounds=1, layers=2)

Run = Callable[[], NDArray[np.int64]]
"""Generates all sequences' tokens, `[sequences, made]`."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("generate", __doc__)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    plan = dataclasses.replace(plan, rounds=options.rounds or plan.rounds)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    with tempfile.TemporaryDirectory() as name:
        report = measure(plan, Path(name), device, dtype)
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def measure(plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    prompts = np.random.default_rng(1).integers(10, 49_000, (plan.sequences, plan.read))
    source, model = _make_models(plan, folder, device, dtype)
    convert_pretrained(source, folder / _BASE)
    engine = _engine(plan, folder, device, dtype)
    with engine:
        runs: dict[str, Run] = {
            "hmi": lambda: _hmi(engine, plan, prompts),
            **_peers(plan, prompts, model, source, device, dtype),
        }
        answers: dict[str, NDArray[np.int64]] = {}

        def timed(name: str, run: Run) -> Callable[[], float]:
            def go() -> float:
                synchronise(device)
                begin = time.perf_counter()
                answers[name] = run()
                synchronise(device)
                return time.perf_counter() - begin

            return go

        timers = {name: timed(name, run) for name, run in runs.items()}
        alternate(timers, 1)  # what is prepared once is not counted
        seconds = alternate(timers, plan.rounds)
    return _report(plan, seconds, answers, device, dtype)


def _make_models(plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Path, Any]:
    """A transformers folder, and PEFT's model of it with an adapter for each tenant, saved beside it."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415
    from tokenizers.models import WordLevel  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config: Any = LlamaConfig.from_dict(_SHAPE | {"num_hidden_layers": plan.layers})
    base: Any = LlamaForCausalLM(config)
    base = base.to(dtype).to(device).eval()
    source = folder / "source"
    base.save_pretrained(source)
    words = {f"w{number}": number for number in range(_WORDS)}
    Tokenizer(WordLevel(words, unk_token=next(iter(words)))).save(str(source / "tokenizer.json"))
    settings = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, settings, adapter_name="t0")
    for tenant in range(1, plan.tenants):
        model.add_adapter(f"t{tenant}", settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    model.to(dtype).eval()
    model.save_pretrained(str(folder / "peft"))
    return source, model


def _engine(plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype) -> Engine:
    spec = read_spec(folder / _BASE)
    source = OneBase(_BASE, folder / _BASE)
    for tenant in range(plan.tenants):
        path = folder / f"t{tenant}.safetensors"
        save_adapter(read_adapter(folder / "peft" / f"t{tenant}", spec), path)
        source.adapters[f"t{tenant}"] = path
    return Engine(EngineConfig(device=str(device), dtype=str(dtype).removeprefix("torch.")), source)


def _hmi(engine: Engine, plan: Plan, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
    params = GenerationParams(max_tokens=plan.made, sampling=Sampling(temperature=0), ignore_eos=True)
    items = [
        Item(ModelRef(_BASE, "general", f"t{plan.tenant(row)}"), Task.GENERATE, tokens=tuple(ids), params=params)
        for row, ids in enumerate(prompts.tolist())
    ]
    return np.array([each.tokens for each in results(engine, items, Generation)])


def _peers(
    plan: Plan, prompts: NDArray[np.int64], model: Any, source: Path, device: torch.device, dtype: torch.dtype
) -> dict[str, Run]:
    from transformers import LlamaForCausalLM  # noqa: PLC0415

    plain: Any = LlamaForCausalLM.from_pretrained(source, dtype=dtype).to(device).eval()  # type: ignore[arg-type]
    ids = torch.from_numpy(prompts).to(device)
    names = [f"t{plan.tenant(row)}" for row in range(plan.sequences)]

    @torch.inference_mode()
    def generate(which: Any, some: torch.Tensor, **more: Any) -> NDArray[np.int64]:
        found: NDArray[np.int64] = (
            which.generate(
                input_ids=some,
                attention_mask=torch.ones_like(some),
                max_new_tokens=plan.made,
                min_new_tokens=plan.made,
                do_sample=False,
                pad_token_id=0,
                **more,
            )[:, plan.read :]
            .cpu()
            .numpy()
        )
        return found

    def per_tenant() -> NDArray[np.int64]:
        made = np.empty((plan.sequences, plan.made), np.int64)
        for tenant in range(plan.tenants):
            model.set_adapter(f"t{tenant}")
            rows = [row for row in range(plan.sequences) if plan.tenant(row) == tenant]
            made[rows] = generate(model, ids[rows])
        return made

    return {
        "per_tenant": per_tenant,
        "base": lambda: generate(plain, ids),
        "peft": lambda: generate(model, ids, adapter_names=names),
    }


def _report(
    plan: Plan,
    seconds: Mapping[str, Sequence[float]],
    answers: Mapping[str, NDArray[np.int64]],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        **{f"ratio_vs_{name}": round(medians[name] / medians["hmi"], 3) for name in ("per_tenant", "base", "peft")},
        "tokens_s": {name: round(plan.tokens / each, 1) for name, each in medians.items()},
        "seconds": {name: [round(each, 3) for each in some] for name, some in seconds.items()},
        "tokens_as_per_tenant": {
            name: round(float((answers[name] == answers["per_tenant"]).mean()), 4) for name in ("hmi", "peft")
        },
        "plan": dataclasses.asdict(plan),
        "dtype": str(dtype).removeprefix("torch."),
        "machine": machine(device),
        "versions": versions("torch", "transformers", "peft"),
    }


def _as_text(report: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{rate:,.0f}", f"{report['tokens_s']['hmi'] / rate:.2f} x"] for name, rate in report["tokens_s"].items()
    ]
    same = report["tokens_as_per_tenant"]
    return "\n".join(
        [
            as_table(["", "tokens/s", "HMI is"], rows),
            f"tokens as with one tenant at a time: HMI {100 * same['hmi']:.1f} %, PEFT {100 * same['peft']:.1f} %",
            f"{report['dtype']}, {report['machine']['gpu'] or report['machine']['processor']}",
        ]
    )


if __name__ == "__main__":
    main()
