"""The demonstration of decoders: tenants teach one small model their voices, and are asked the same in one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo.batches import run_lines
from examples.demo.figures import StepFigures
from examples.demo.once import code_hash, file_hash, hash_of, made_once
from examples.demo.smollm import fetch_smollm
from examples.demo.steps import Steps
from examples.demo.voices import ASKED, FACTS, VOICES, Voice
from examples.demo.waiting import Patience
from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.cli.client import HmiClient
from hmi.cli.local import Services
from hmi.cli.render import BatchProgress
from hmi.errors import HmiError

__all__ = ["ChatFigures", "ChatStory"]

_BASE = "smollm2"
_PLAIN = "visitors"  # whose model is the base as it is
_DOMAIN = "general"
_MOST_TOKENS = 40


@dataclass(frozen=True, slots=True)
class ChatFigures:
    """
    Attributes:
        answers: By tenant, in the order of the questions.
        in_voice: By tenant, how many of its answers are in its voice.
        plain_in_voice: How many of the base model's own answers are in any tenant's.
        tokens_per_second: Generated, of the whole batch as the client saw it.
    """

    seconds: float
    steps: tuple[StepFigures, ...]
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    in_voice: Mapping[str, int]
    plain_in_voice: int
    tokens_per_second: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ChatStory:
    """On running services; all that it does goes through the API."""

    def __init__(self, services: Services, steps: Steps, cache: Path, device: str, *, quick: bool) -> None:
        self._steps = steps
        self._cache = cache
        self._device = device
        self._voices = VOICES[:2] if quick else VOICES
        self._epochs = 2 if quick else 6
        self._folder = services.data_dir / "demo"
        self._folder.mkdir(exist_ok=True)
        self._client = HmiClient(services.api_url, services.admin_key)
        self._openai = OpenAI(base_url=f"{services.api_url}/v1", api_key=services.admin_key)
        self._patience = Patience(services.check)

    def run(self) -> ChatFigures:
        """Raises `HmiError` where a step did not do what it should."""
        with self._client, self._openai:
            base = self._make_base()
            self._teach(base)
            answers, rate = self._ask()
        return ChatFigures(
            seconds=self._steps.seconds,
            steps=tuple(self._steps.taken),
            questions=ASKED,
            answers=answers,
            in_voice={voice.tenant: sum(map(voice.is_heard_in, answers[voice.tenant])) for voice in self._voices},
            plain_in_voice=sum(any(each.is_heard_in(text) for each in self._voices) for text in answers[_PLAIN]),
            tokens_per_second=rate,
        )

    def _make_base(self) -> Path:
        from hmi.models.convert import convert_pretrained

        with self._steps.step("SmolLM2-135M-Instruct, a Llama, as a base model that computes every layer"):
            source = fetch_smollm(self._cache)

            def convert(target: Path) -> dict[str, object]:
                spec = convert_pretrained(source, target)
                return {"layers": spec.layers}

            note, reused = made_once(self._folder / "bases" / _BASE, hash_of([file_hash(source), code_hash()]), convert)
            folder = self._folder / "bases" / _BASE / "artifact"
            self._client.register_base(_BASE, folder)
            self._steps.say(f"{_BASE}: {note['layers']} layers{' (made by an earlier run)' if reused else ''}")
        return folder

    def _teach(self, base: Path) -> None:
        title = f"{len(self._voices)} tenants teach it their voices, with {len(FACTS)} questions and answers each"
        with self._steps.step(title):
            known = {each.name for each in self._client.tenants()}
            for name in [_PLAIN, *(voice.tenant for voice in self._voices)]:
                if name not in known:
                    self._client.create_tenant(name)
            self._client.register_model(f"{_PLAIN}/voice", base=_BASE, domain=_DOMAIN, adapter=None)
            for voice in self._voices:
                adapter, note = self._make_adapter(voice, base)
                self._client.register_model(voice.model, base=_BASE, domain=_DOMAIN, adapter=adapter)
                self._steps.say(f"{voice.model} {voice.about}: {note}")

    def _make_adapter(self, voice: Voice, base: Path) -> tuple[Path, str]:
        from hmi.training.adapter import train_adapter
        from hmi.training.data import ChatExample
        from hmi.training.plan import TrainConfig

        examples = [ChatExample((("user", question),), voice.says(fact)) for question, fact in FACTS]
        config = TrainConfig(
            AdapterKind.LORA, rank=8, epochs=self._epochs, batch_size=8, dev_share=0, device=self._device
        )
        origin = hash_of([file_hash(base / "model.safetensors"), code_hash(), repr(config), repr(examples)])

        def train(target: Path) -> dict[str, object]:
            with _bar(self._steps) as progress:
                task = progress.add_task(voice.tenant, total=1.0)
                trained = train_adapter(
                    base,
                    examples,
                    config,
                    on_progress=lambda reached: progress.update(task, completed=reached.done / reached.steps),
                )
            target.mkdir()
            save_adapter(trained.adapter, target / "adapter.safetensors")
            return {"seconds": trained.report.seconds, "bytes": trained.adapter.nbytes}

        note, reused = made_once(self._folder / "voices" / voice.tenant, origin, train)
        how = "trained by an earlier run" if reused else f"trained in {float(str(note['seconds'])):.0f} s"
        return self._folder / "voices" / voice.tenant / "artifact", f"{how}, {int(str(note['bytes'])) / 1e6:.1f} MB"

    def _ask(self) -> tuple[dict[str, tuple[str, ...]], float]:
        tenants = [_PLAIN, *(voice.tenant for voice in self._voices)]
        with self._steps.step(f"One batch: {len(ASKED)} questions that nobody taught, to {len(tenants)} tenants"):
            path = self._folder / "chats.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for number, question in enumerate(ASKED):
                    for tenant in tenants:
                        file.write(json.dumps(_line(tenant, number, question)) + "\n")
            with BatchProgress(console=self._steps.console) as progress:
                run = run_lines(self._openai, path, "/v1/chat/completions", self._patience, progress.update_from)
            made = sum(int(body["usage"]["completion_tokens"]) for body in run.bodies.values())
            answers = {
                tenant: tuple(_said(run.bodies[f"{tenant}-{number}"]) for number in range(len(ASKED)))
                for tenant in tenants
            }
            self._steps.say(f"{made} tokens in {run.seconds:.1f} s")
            self._steps.show(_table(answers))
        for voice in self._voices:
            if not any(map(voice.is_heard_in, answers[voice.tenant])):
                raise HmiError(f"no answer of {voice.tenant} is in its voice", code="not_heard")
        return answers, made / run.seconds


def _line(tenant: str, number: int, question: str) -> dict[str, Any]:
    body = {
        "model": f"{tenant}/voice",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": _MOST_TOKENS,
    }
    return {"custom_id": f"{tenant}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def _said(body: Mapping[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


def _table(answers: Mapping[str, tuple[str, ...]]) -> Table:
    table = Table("question", "tenant", "answer", show_lines=False)
    for number, question in enumerate(ASKED):
        for place, (tenant, said) in enumerate(answers.items()):
            first = place == 0
            table.add_row(
                question if first else "",
                f"{tenant} (the base model)" if tenant == _PLAIN else tenant,
                said[number].replace("\n", " "),
                end_section=place == len(answers) - 1,
            )
    return table


def _bar(steps: Steps) -> Progress:
    columns = (TextColumn("   {task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=steps.console, transient=True)
