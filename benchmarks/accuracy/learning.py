"""What the systems are made of: bases, the domains' deltas, and an adapter for every domain, seed and system."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.plan import DomainText, Plan, System
from benchmarks.minilm import make_base
from examples.data import find_pretrained
from hmi.adapters import Adapter
from hmi.adapters.formats import load_adapter, save_adapter
from hmi.models.convert import find_shipped_diff
from hmi.spec import MissPolicy, RowDtype
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.delta import DeltaConfig, train_delta
from hmi.training.distill import DistillConfig, apply_weight_diff, build_base
from hmi.training.loop import run_parallel
from hmi.training.plan import TrainConfig

_SUFFIX = ".safetensors"
_TEACHER_SEED = 0  # of a domain's full models, the one that its delta is distilled from


@dataclass(frozen=True, slots=True)
class Job:
    """One adapter to train. `k` is 0 for the ordinary model on all layers."""

    system: System
    k: int
    domain: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.system}-k{self.k}-{self.domain}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Learner:
    """Makes everything in `folder`; what is there already stays, so that a stopped run resumes."""

    folder: Path
    cache: Path  # of texts, and of bases that take long to distil
    plan: Plan
    texts: Mapping[str, DomainText]
    device: str
    dtype: str
    say: Callable[[str], None]  # receives a line for each thing that was made

    def base(self, k: int) -> Path:
        """The base artifact that looks its lower `k` layers up."""
        return self.folder / f"base-k{k}"

    def adapter(self, job: Job) -> Path:
        learnt = dataclasses.replace(job, system=job.system.learnt_as)
        return self.folder / f"{learnt.name}{_SUFFIX}"

    def delta(self, k: int, domain: str) -> Path:
        return self.folder / f"delta-k{k}-{domain}{_SUFFIX}"

    def learn(self) -> None:
        """Make all of it, in the order in which one thing needs another."""
        for k in (0, *self.plan.ks):
            self._make_base(k)
        learnt = [system for system in System if system.learnt_as is system]
        for system in learnt:
            if system.ordinary:
                self._train(self.jobs(system, 0))
        for k in self.plan.ks:
            for domain in self.texts:
                self._make_delta(k, domain)
            for system in learnt:
                if not system.ordinary:
                    self._train(self.jobs(system, k))

    def jobs(self, system: System, k: int) -> list[Job]:
        return [Job(system, k, domain, seed) for domain in self.texts for seed in range(self.plan.seeds)]

    def _make_base(self, k: int) -> None:
        folder = self.base(k)
        if folder.exists():
            return
        source = find_pretrained()
        shipped = find_shipped_diff(source, k) if k else None
        if not k:
            build_base(source, folder, 0)
        elif shipped is not None:
            apply_weight_diff(source, shipped, folder, RowDtype.INT8)
        elif self.plan.distil_steps:
            kept = self.cache / "bases" / f"minilm-l6-k{k}-{self.plan.distil_steps}"
            if not kept.exists():
                self.say(f"distilling MiniLM-L6 at k = {k}, {self.plan.distil_steps:,} steps")
                config = DistillConfig(steps=self.plan.distil_steps, device=self.device, dtype=self.dtype)
                make_base(kept, k, self.cache, config)
            shutil.copytree(kept, folder)
        else:
            training = [each.text for text in self.texts.values() for each in text.training]
            build_base(source, folder, k, corpora=[training])

    def _make_delta(self, k: int, domain: str) -> None:
        path = self.delta(k, domain)
        if path.exists():
            return
        teacher = self.adapter(Job(System.FULL, 0, domain, _TEACHER_SEED))
        config = DeltaConfig(steps=self.plan.delta_steps, nearness=0.0, device=self.device, dtype=self.dtype)
        trained = train_delta(
            self.base(k),
            [each.text for each in self.texts[domain].training],
            config,
            teacher=find_pretrained(),
            teacher_adapter=load_adapter(teacher),
        )
        before, after = trained.report.before.upper, trained.report.after.upper
        self.say(
            f"delta of {domain} at k = {k}: error of the last layer's states {before:.3f} before, {after:.3f} after"
        )
        _save(trained.delta, path)

    def _train(self, jobs: list[Job]) -> None:
        missing = [job for job in jobs if not self.adapter(job).exists()]
        if not missing:
            return

        def train(job: Job, check: Callable[[], None]) -> tuple[Adapter, float]:
            full = Job(System.FULL, 0, job.domain, job.seed)
            trained = train_adapter(
                self.base(job.k if job.system.looks_up else 0),
                [Example(each.text, each.label) for each in self.texts[job.domain].training],
                self._config(job),
                delta=load_adapter(self.delta(job.k, job.domain)) if job.system.has_delta else None,
                start=load_adapter(self.adapter(full)) if job.system.starts else None,
                on_progress=lambda progress: check(),
            )
            return trained.adapter, trained.report.seconds

        seconds = []
        for job, (adapter, took) in run_parallel(train, missing):
            _save(adapter, self.adapter(job))
            seconds.append(took)
        system = missing[0].system
        self.say(f"{system} at k = {missing[0].k}: {len(missing)} adapters, {sum(seconds) / len(seconds):.0f} s each")

    def _config(self, job: Job) -> TrainConfig:
        return TrainConfig(
            kind=self.plan.kind,
            rank=self.plan.rank,
            epochs=self.plan.more_epochs if job.system.starts else self.plan.epochs,
            learning_rate=self.plan.lower_rate if job.system.starts else self.plan.learning_rate,
            dev_share=0.0,
            lowest_layer=job.k if job.system is System.UPPER else 0,
            miss_policy=MissPolicy.BACKOFF,  # no worse for exact lookups, and one adapter for both
            seed=job.seed,
            device=self.device,
            dtype=self.dtype,
        )


def _save(adapter: Adapter, path: Path) -> None:
    """Whole or not at all: a run that is cut short leaves nothing that the next one would take for made."""
    beside = path.with_suffix(".tmp")
    save_adapter(adapter, beside)
    beside.replace(path)
