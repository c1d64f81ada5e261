"""A tagger from its training to the lines of a batch, beside models that classify whole texts."""

from __future__ import annotations

from pathlib import Path

from hmi.adapters import Adapter
from hmi.adapters.formats import save_adapter
from hmi.catalog import BatchStatus
from hmi.engine import Engine, EngineConfig
from hmi.spec import read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import Span, TaggedExample
from hmi.training.plan import TrainConfig
from tests.runtimes import run_waiting, running
from tests.sentences import sentences
from tests.tiny import tiny_base
from tests.worksite import Worksite, line


def stored(adapter: Adapter, path: Path) -> bytes:
    save_adapter(adapter, path)
    return path.read_bytes()


def test_words_are_labelled_in_a_batch_when_their_model_was_trained_for_it(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    base = tiny_base(tmp_path, k=2)
    plain = sentences(64, 1)
    parts = (Span(0, 2, "FLAG"), Span(7, 9, "FLAG"))
    named = [TaggedExample(f"w0 w{10 + n} w1 w{70 - n}", parts, entities=True) for n in range(60)]
    config = TrainConfig(rank=8, epochs=12, batch_size=8, learning_rate=1e-2, dtype="float32")
    site = Worksite(tmp_path / "data", database_url, redis_url)
    site.add_base(spec=read_spec(base), folder=base)
    site.add_tenant("acme")
    for name, examples in (("tagger", named), ("sentiment", plain)):
        adapter = train_adapter(base, examples, config).adapter
        site.add_model("acme", name, adapter=stored(adapter, tmp_path / name))
    engine = EngineConfig(device="cpu", dtype="float32", threads=1)
    with running(site, make_engine=lambda source: Engine(engine, source)) as runtime:
        runtime.load_bases()
        lines = [
            line("words", "acme/tagger", ["w0 w20 w1 w60", "w50 w40"]),
            line("text", "acme/sentiment", "w20 w0 w30"),
            line("ids", "acme/tagger", [2, 5, 3]),
        ]
        batch = site.submit("acme", lines)
        run_waiting(runtime, site)
        results = site.results("acme", batch)
    site.close()
    assert results.status is BatchStatus.COMPLETED
    first, second = results.answers["words"]["data"]
    assert first.keys() == {"index", "num_classes", "tokens", "entities"}
    assert (first["num_classes"], second["index"]) == (3, 1)
    assert [(each["start"], each["end"], each["label"]) for each in first["tokens"]] == [
        (0, 2, "B-FLAG"),
        (7, 9, "B-FLAG"),
    ]
    assert [(each["start"], each["end"], each["label"]) for each in first["entities"]] == [
        (0, 2, "FLAG"),
        (7, 9, "FLAG"),
    ]
    assert 0.5 < first["tokens"][0]["score"] <= 1
    assert results.answers["words"]["usage"]["prompt_tokens"] == 6 + 4
    assert results.answers["text"]["data"][0]["num_classes"] == 2
    assert results.errors["ids"]["response"]["body"]["error"]["param"] == "input"
