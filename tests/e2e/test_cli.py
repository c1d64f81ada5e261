"""From a pretrained model and labelled text to answers, by commands alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from examples import batch_with_openai
from hmi.cli.client import DataFolder
from tests.running import Up, running_up
from tests.tiny import TINY_WORDS, tiny_bert_folder

pytestmark = pytest.mark.slow


def _sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Sentences whose first word determines the label."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        label = draw.choice(["no", "yes"])
        words = [f"w{0 if label == 'no' else 1}", *draw.choices(TINY_WORDS, k=draw.randint(2, 12))]
        made.append({"text": " ".join(words), "label": label})
    return made


def _write(path: Path, records: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _train_and_register(up: Up, folder: Path) -> None:
    up.run("build", "base", str(tiny_bert_folder(folder / "bert")), "--k", "2", "--out", str(folder / "base"))
    assert "exists already" in up.run(
        "build", "base", str(folder / "bert"), "--k", "1", "--out", str(folder / "base"), status=1
    )
    up.run("base", "register", "tiny-k2", str(folder / "base"))
    (base,) = json.loads(up.run("base", "list", "--json"))
    assert (base["name"], base["spec"]["k"], base["tree"]) == ("tiny-k2", 2, None)

    data = _write(folder / "train.jsonl", _sentences(200, seed=1))
    dev = _write(folder / "dev.jsonl", _sentences(50, seed=2))
    for tenant, kind in (("tenant0", "lora"), ("tenant1", "bottleneck")):
        adapter = str(folder / kind)
        options = ("--kind", kind, "--rank", "8", "--epochs", "2", "--dev", str(dev), "--json")
        report = json.loads(up.run("train", str(data), "--base", str(folder / "base"), "--out", adapter, *options))
        assert report["labels"] == ["no", "yes"]
        assert 0 <= report["dev"]["values"]["accuracy"] <= 1
        up.run("tenant", "add", tenant)
        _register(up, f"{tenant}/{kind}", adapter)
    assert "(revision 1)" in _register(up, "tenant1/bottleneck", str(folder / "bottleneck"))  # the same content
    assert "(revision 2)" in _register(up, "tenant1/bottleneck", str(folder / "lora"))
    assert "(revision 3)" in _register(up, "tenant1/bottleneck", str(folder / "bottleneck"))
    assert "tenant0" not in up.run("model", "list", "--tenant", "tenant1")


def _register(up: Up, name: str, adapter: str) -> str:
    return up.run("model", "register", name, "--base", "tiny-k2", "--domain", "reviews", "--adapter", adapter)


def _ask(up: Up, folder: Path) -> dict[str, object]:
    """One batch for both models; its answers by custom_id."""
    texts = [each["text"] for each in _sentences(40, seed=3)]
    models = ("tenant0/lora", "tenant1/bottleneck")
    lines = [
        {
            "custom_id": f"{model} {number}",
            "method": "POST",
            "url": "/v1/classify",
            "body": {"model": model, "input": text},
        }
        for model in models
        for number, text in enumerate(texts)
    ]
    path = _write(folder / "requests.jsonl", lines)
    batch = json.loads(up.run("batch", "submit", str(path), "--endpoint", "/v1/classify", "--wait", "--json"))
    assert batch["request_counts"] == {"total": 80, "completed": 80, "failed": 0}
    answers = [json.loads(line) for line in up.run("batch", "output", batch["id"]).splitlines()]
    return {each["custom_id"]: each["response"]["body"]["data"][0]["label"] for each in answers}


def test_answers_come_from_trained_adapters_when_only_commands_were_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_up(tmp_path / "data", HMI_FLUSH_SECONDS="1") as up:
        up.run("domain", "add", "reviews")
        _train_and_register(up, tmp_path)
        before = _ask(up, tmp_path)
        assert set(before.values()) <= {"no", "yes"}
        assert len(before) == 80

        assert "no tree is published" in up.run("tree", "show", "tiny-k2")
        text = tmp_path / "text.txt"
        text.write_text("\n".join(each["text"] for each in _sentences(100, seed=4)))
        assert up.run("tree", "count", "tiny-k2", "reviews", str(text)).startswith("100 lines")
        up.run("tree", "rebuild", "tiny-k2", "--wait", "--timeout", "60")
        assert "tiny-k2: tree 1, published" in up.run("tree", "show")
        assert "* tree 1  published" in up.run("tree", "versions")
        top = json.loads(up.run("tree", "top", "reviews", "--json"))
        assert {each["held"] for each in top["data"]} <= {"own", "inherited"}

        assert _ask(up, tmp_path) == before  # the tree changes speed only
        data = DataFolder(up.folder)
        running, key = data.find_running(), data.find_admin_key()
        assert running
        assert key
        batch_with_openai.main(
            ["--model", "tenant0/lora", "--url", running.api_url, "--key", key, "w0 w7 w9", "w1 w8 w4"]
        )
        lines = capsys.readouterr().out.splitlines()
        assert [re.sub(r" \(0\.\d\d\)$", "", line) for line in lines] == ["'w0 w7 w9': no", "'w1 w8 w4': yes"]
        (tree,) = json.loads(up.run("tree", "show", "--json"))
        assert tree["domains"]["general"]["entries"] >= 100  # all unigrams
        status = up.run("status")
        assert "device memory" in status
        up.run("model", "remove", "tenant0/lora")
        assert "tenant0" not in up.run("model", "list")
