"""`hmi train`: from a file to a folder that can be registered, or to the line that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hmi.adapters.formats import read_adapter
from hmi.cli.main import app
from hmi.spec import read_spec
from hmi.training.adapter import train_adapter
from hmi.training.data import Example
from hmi.training.plan import TrainConfig
from hmi.training.reports import TrainProgress
from hmi.training.reports.card import model_card
from tests.sentences import sentences
from tests.tiny import tiny_base

QUICK = ["--rank", "4", "--batch-size", "32", "--learning-rate", "0.01"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), k=2)


def write(path: Path, count: int, seed: int = 1) -> Path:
    records = ({"text": each.text, "label": each.label, "id": 1} for each in sentences(count, seed))
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def test_folder_holds_adapter_report_and_card_when_training_is_over(base: Path, tmp_path: Path) -> None:
    data, out = write(tmp_path / "reviews.jsonl", 320), tmp_path / "made" / "adapter"
    arguments = ["train", str(data), "--base", str(base), "--out", str(out), *QUICK, "--epochs", "2"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert (report["task"], report["k"], report["labels"]) == ("classification", 2, ["no", "yes"])
    assert report["examples"] + report["dev_examples"] == 320
    assert report["config"]["epochs"] == 2
    assert report["seconds_per_thousand_examples"] == pytest.approx(report["seconds"] / 0.32)
    assert sum(map(sum, report["dev"]["confusion"])) == report["dev_examples"] > 16
    assert "fields that are not read: id" in result.stderr
    adapter = read_adapter(out, read_spec(base))
    assert adapter.head is not None
    assert adapter.head.labels == ("no", "yes")
    card = (out / "README.md").read_text()
    assert card.startswith("# adapter\n")
    assert f"{report['dev']['values']['macro_f1']:.3f}" in card
    assert "| no | yes |" in card
    assert report["base"][:12] in card
    assert sorted(path.name for path in out.parent.iterdir()) == ["adapter"]


def test_dev_file_is_evaluated_and_its_score_is_printed(base: Path, tmp_path: Path) -> None:
    data, dev, out = write(tmp_path / "a.jsonl", 64), write(tmp_path / "b.jsonl", 20, seed=2), tmp_path / "adapter"
    arguments = ["train", str(data), "--base", str(base), "--dev", str(dev), "--out", str(out), *QUICK]
    result = CliRunner().invoke(app, [*arguments, "--epochs", "1", "--kind", "lora"])
    assert result.exit_code == 0, result.output
    assert "classification from 64 examples" in result.stdout
    assert "on 20 others, after epoch 1: accuracy 0." in result.stdout
    assert "(accuracy 0.500 without training)" in result.stdout


def test_training_resumes_after_an_interrupt(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write(tmp_path / "a.jsonl", 64), tmp_path / "adapter"
    arguments = ["train", str(data), "--base", str(base), "--out", str(out), *QUICK, "--epochs", "3", "--json"]

    def stop(_: object, progress: TrainProgress, words: str) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hmi.cli.render.ProgressBar.show_training", stop)
        assert CliRunner().invoke(app, arguments).exit_code != 0
    assert not out.exists()
    result = CliRunner().invoke(app, arguments)
    assert json.loads(result.stdout)["resumed_at"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "adapter"]


def test_adapter_of_the_ordinary_model_is_carried_over(base: Path, tmp_path: Path) -> None:
    full, data = tiny_base(tmp_path / "full", k=0), write(tmp_path / "a.jsonl", 64)
    command = ["train", str(data), "--base"]
    first = [*command, str(full), "--out", str(tmp_path / "all"), "--kind", "lora", "--rank", "4", "--epochs", "1"]
    assert CliRunner().invoke(app, first).exit_code == 0
    onwards = [*command, str(base), "--out", str(tmp_path / "upper"), "--start", str(tmp_path / "all"), "--json"]
    result = CliRunner().invoke(app, onwards)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["started"]
    config = report["config"]
    assert (config["kind"], config["rank"], config["epochs"], config["learning_rate"]) == ("lora", 4, 2, 1e-3)
    assert {layer for layer, _ in read_adapter(tmp_path / "upper", read_spec(base)).lora} == {2, 3}
    assert "starting from another adapter" in (tmp_path / "upper" / "README.md").read_text()
    refused = CliRunner().invoke(app, [*onwards[:-1], "--rank", "8"])
    assert refused.exit_code == 1
    assert "leave --kind and --rank out" in refused.stderr


@pytest.mark.parametrize(
    ("name", "content", "options", "reason"),
    [
        ("a.jsonl", '{"text": "w1", "label": "x"}\n{"text": "", "label": "y"}\n', [], "a.jsonl line 2: text is empty"),
        ("a.jsonl", '{"text": "w1", "label": "x"}\n' * 3, [], "a.jsonl line 1: from here on, all 3 examples"),
        ("a.csv", "review,stars\ngood,5\n", [], "a.csv line 2: its fields are review, stars; expected are text, label"),
        ("a.jsonl", '{"text": "w1", "label": "x"}\n', ["--task", "tokens"], "expected are tokens, tags; or"),
        ("a.jsonl", "", [], "a.jsonl: there are no examples"),
    ],
)  # fmt: skip
def test_line_and_reason_are_printed_when_the_file_is_wrong(
    base: Path, tmp_path: Path, name: str, content: str, options: list[str], reason: str
) -> None:
    (tmp_path / name).write_text(content)
    arguments = ["train", str(tmp_path / name), "--base", str(base), "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seed", "99999999999999999999", "--seed"),
        ("--out", "file/out", "cannot write"),
        ("--delta", "nosuch", "cannot read"),
    ],
)
def test_an_impossible_option_is_refused(base: Path, tmp_path: Path, option: str, value: str, said: str) -> None:
    (tmp_path / "file").write_text("no folder")
    given = [option, value if option == "--seed" else str(tmp_path / value)]
    data = write(tmp_path / "reviews.jsonl", 8)
    result = CliRunner().invoke(app, ["train", str(data), "--base", str(base), "--out", str(tmp_path / "out"), *given])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code
    assert said in " ".join(result.stderr.split())


def test_names_cannot_break_the_card_when_they_hold_markup(base: Path, tmp_path: Path) -> None:
    examples = [Example(each.text, {"no": "a|b", "yes": "[x](y) <i>"}[each.label]) for each in sentences(40, 1)]
    report = train_adapter(base, examples[:20], TrainConfig(rank=2, epochs=1), examples[20:]).report
    card = model_card(report, "na`me", "da\nta")
    assert "| a\\|b |" in card
    assert "\\[x\\](y) \\<i\\>" in card
    assert card.startswith("# na\\`me\n")
    rows = [line for line in card.splitlines() if line.startswith("| a\\|b")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [3, 6, 4]
