"""What the trees are measured with: a base model, a delta for each domain, and tenants' adapters on top of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inheritance.plan import GENERAL, DomainText, Plan
from examples.demo import find_pretrained
from hmi.adapters import Adapter
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.models.families import load_spec
from hmi.spec import HPLMSpec
from hmi.training.adapter import TrainConfig, train_adapter
from hmi.training.data import Example
from hmi.training.delta import DeltaConfig, train_delta
from hmi.training.distill import build_base

__all__ = ["Learner", "adapter_name", "delta_name"]

_CALIBRATION_TEXTS = 2000
_SUFFIX = ".safetensors"


def delta_name(domain: str) -> str:
    return f"delta-{domain}"


def adapter_name(domain: str, seed: int, *, deltas: bool) -> str:
    return f"adapter-{domain}-{seed}{'' if deltas else '-without'}"


@dataclass(frozen=True, slots=True)
class Learner:
    """Makes everything in `folder`; what is there already stays.

    Attributes:
        say: Told what is being made, a line for each.
    """

    folder: Path
    plan: Plan
    texts: Mapping[str, DomainText]
    device: str
    dtype: str
    say: Callable[[str], None]

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def spec(self) -> HPLMSpec:
        return load_spec(self.base)

    def learn(self) -> dict[str, Path]:
        """The files of all deltas and adapters, by name."""
        self._make_base()
        everything = [each.text for text in self.texts.values() for each in text.training]
        made = {delta_name(GENERAL): self._make_delta(GENERAL, everything, self.plan.general_steps, None)}
        above = load_adapter(made[delta_name(GENERAL)])
        for domain, text in self.texts.items():
            training = [each.text for each in text.training]
            path = self._make_delta(domain, training, self.plan.domain_steps, above)
            made[delta_name(domain)] = path
            delta = load_adapter(path)
            for seed in range(self.plan.seeds):
                for trained_on in (delta, None):
                    name = adapter_name(domain, seed, deltas=trained_on is not None)
                    made[name] = self._make_adapter(name, text, seed, trained_on)
        return made

    def _make_base(self) -> None:
        if not self.base.exists():
            self.say(f"base model, k = {self.plan.k}")
            texts = [each.text for text in self.texts.values() for each in text.training]
            build_base(find_pretrained(), self.base, self.plan.k, corpora=[_some(texts)])

    def _make_delta(self, domain: str, texts: Sequence[str], steps: int, above: Adapter | None) -> Path:
        path = self.folder / f"{delta_name(domain)}{_SUFFIX}"
        if not path.exists():
            config = DeltaConfig(steps=steps, device=self.device, dtype=self.dtype)
            if above is None:
                config = dataclasses.replace(config, nearness=0.0)
            trained = train_delta(self.base, texts, config, above=above)
            before, after = trained.report.before.upper, trained.report.after.upper
            self.say(f"delta of {domain}: error of the last layer's states {before:.3f} before, {after:.3f} after")
            _save(trained.delta, path)
        return path

    def _make_adapter(self, name: str, text: DomainText, seed: int, delta: Adapter | None) -> Path:
        path = self.folder / f"{name}{_SUFFIX}"
        if not path.exists():
            config = TrainConfig(epochs=self.plan.epochs, dev_share=0, seed=seed, device=self.device, dtype=self.dtype)
            examples = [Example(each.text, each.label) for each in text.training]
            trained = train_adapter(self.base, examples, config, delta=delta)
            self.say(f"{name}: {trained.report.seconds:.0f} s")
            _save(trained.adapter, path)
        return path


def _save(adapter: Adapter, path: Path) -> None:
    """Whole or not at all: a run that is cut short leaves nothing that the next one would take for made."""
    beside = path.with_suffix(".tmp")
    save_adapter(adapter, beside)
    beside.replace(path)


def _some(texts: Sequence[str]) -> list[str]:
    step = -(-len(texts) // _CALIBRATION_TEXTS)
    return list(texts[::step])
