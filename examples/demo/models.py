"""The base models and the adapters of the demonstration, each made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.data import Sentence, find_pretrained, thinned
from examples.demo.cache import code_hash, file_hash, hash_of, made_once
from examples.demo.tenants import BASES, DemoTenant, Portion, Scale
from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.spec import RowDtype

__all__ = ["MadeAdapter", "MadeBase", "make_adapters", "make_bases"]

_CALIBRATION_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class MadeBase:
    """`error` is the last layer's relative error against the full model, after the conversion and now."""

    folder: Path
    k: int
    error: tuple[float, float] | None
    distilled: bool
    reused: bool


@dataclass(frozen=True, slots=True)
class MadeAdapter:
    folder: Path
    seconds: float
    reused: bool


def make_bases(out: Path, text: Sequence[Sentence], device: str) -> Iterator[tuple[str, MadeBase]]:
    """Make the base models of `BASES` under `out`, one after the other.

    A base with k > 0 has the distilled weights of this package; a model that it does not know is fitted to `text`.
    """
    source = find_pretrained()
    made_from = [file_hash(source / "model.safetensors"), code_hash()]
    sample = [each.text for each in thinned(text, _CALIBRATION_TEXTS)]
    for name, k in BASES.items():
        texts = sample if k else []

        def build(target: Path, k: int = k, texts: Sequence[str] = texts) -> dict[str, object]:
            return _build(source, target, k, texts, device)

        note, reused = made_once(out / name, hash_of([*made_from, k, texts]), build)
        error = tuple(note["error"]) if isinstance(note["error"], list) else None
        yield name, MadeBase(out / name / "artifact", k, error, bool(note["distilled"]), reused)


def _build(source: Path, target: Path, k: int, texts: Sequence[str], device: str) -> dict[str, object]:
    from hmi.models.convert import find_shipped_diff
    from hmi.training.distill import DistillConfig, apply_weight_diff, build_base

    shipped = find_shipped_diff(source, k) if k else None
    if shipped is not None:
        apply_weight_diff(source, shipped, target, RowDtype.INT8)
        before, after = shipped.about["before"], shipped.about["after"]
        return {"error": [each["layers"][-1] for each in (before, after)], "distilled": True}
    corpora = [texts] if texts else []
    report = build_base(source, target, k, RowDtype.INT8, corpora, DistillConfig(steps=0, device=device))
    error = (report.before.upper, report.after.upper) if report.before and report.after else None
    return {"error": error, "distilled": False}


def make_adapters(
    out: Path,
    scale: Scale,
    dealt: Mapping[str, Portion],
    bases: Mapping[str, MadeBase],
    device: str,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Generator[tuple[DemoTenant, MadeAdapter], None, None]:
    """Train each tenant's adapter and head on its own sentences under `out`, one on each core.

    Args:
        on_progress: Called from the trainings' threads with the adapters done, with fractions.
    """
    from hmi.training.loop import run_parallel

    shares = dict.fromkeys((tenant.name for tenant in scale.tenants), 0.0)

    def make(tenant: DemoTenant, check: Callable[[], None]) -> MadeAdapter:
        def report(share: float) -> None:
            check()
            shares[tenant.name] = share
            on_progress(sum(shares.values()))

        made = _make_adapter(out, tenant, dealt[tenant.name], bases[tenant.base], scale, device, report)
        report(1)
        return made

    return run_parallel(make, scale.tenants)


def _make_adapter(
    out: Path,
    tenant: DemoTenant,
    portion: Portion,
    base: MadeBase,
    scale: Scale,
    device: str,
    report: Callable[[float], None],
) -> MadeAdapter:
    from hmi.training.adapter import train_adapter
    from hmi.training.data import Example
    from hmi.training.plan import TrainConfig

    examples = [Example(each.text, each.label) for each in portion.training]
    config = TrainConfig(
        kind=AdapterKind(tenant.kind),
        rank=tenant.rank,
        epochs=scale.epochs,
        batch_size=scale.batch_size,
        dev_share=0,  # the test sentences alone evaluate it, after a fixed number of epochs
        device=device,
    )
    made_from = [file_hash(base.folder / "model.safetensors"), code_hash()]
    origin = hash_of([*made_from, repr(config), [dataclasses.astuple(each) for each in examples]])

    def train(target: Path) -> dict[str, object]:
        trained = train_adapter(
            base.folder, examples, config, on_progress=lambda reached: report(reached.done / reached.steps)
        )
        target.mkdir()
        save_adapter(trained.adapter, target / "adapter.safetensors")
        return {"seconds": trained.report.seconds}

    note, reused = made_once(out / tenant.name, origin, train)
    return MadeAdapter(out / tenant.name / "artifact", float(str(note["seconds"])), reused)
