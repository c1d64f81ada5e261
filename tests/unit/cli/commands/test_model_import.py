"""`hmi model import`: from a foreign folder to one that can be registered, and to what training it again would cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, TaskType, get_peft_model
from transformers import BertForSequenceClassification, BertModel
from typer.testing import CliRunner, Result

from hmi.adapters.formats import FILE_NAME, read_adapter, save_adapter
from hmi.artifacts import folder_digest
from hmi.cli.client import HmiClient
from hmi.cli.main import app
from hmi.models.convert import convert_pretrained
from hmi.schemas import BaseObject, TenantModelObject
from hmi.spec import Site, read_spec
from hmi.training.delta import DeltaConfig, train_delta
from hmi.training.reports import TrainProgress
from tests.answers import filled
from tests.oracles.adapterhub import make_adapterhub_oracle
from tests.sentences import sentences
from tests.tiny import tiny_bert_config, tiny_bert_folder

QUICK = ["--epochs", "2", "--learning-rate", "0.01"]
LABELS = ["--label", "no", "--label", "yes"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("bases")
    bert = tiny_bert_folder(root / "bert")
    for k in (0, 2):
        convert_pretrained(bert, root / f"tiny-k{k}", k=k)
    return {k: root / f"tiny-k{k}" for k in (0, 2)}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A classifier of two labels, as PEFT saves it."""
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query", "value"])
    model = get_peft_model(BertForSequenceClassification(tiny_bert_config(num_labels=2)), config)
    model.save_pretrained(str(tmp_path / "theirs"))
    path = tmp_path / "theirs" / "adapter_config.json"  # PEFT would look the name up on the hub before it saves
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "someone/their_model"}))
    return tmp_path / "theirs"


def write(path: Path, count: int, seed: int = 1) -> Path:
    records = ({"text": each.text, "label": each.label} for each in sentences(count, seed))
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["model", "import", *map(str, arguments)])


def test_folder_can_be_registered_and_says_where_it_comes_from(
    bases: dict[int, Path], theirs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "adapter"
    result = run(theirs, "--base", bases[0], "--out", out, *LABELS)
    assert result.exit_code == 0, result.output
    assert "lora from PEFT" in result.stdout
    assert "trained on 'someone/their_model' by its own account" in result.stdout
    assert "ranks 4, layers 0, 1, 2, 3, sites q, v" in result.stdout
    assert "labels no, yes, 8.5 kB" in result.stdout
    spec = read_spec(bases[0])
    ours, plain = read_adapter(out, spec), read_adapter(theirs, spec, ["no", "yes"])
    assert ours.tensors().keys() == plain.tensors().keys()
    assert all(np.array_equal(tensor, plain.tensors()[name]) for name, tensor in ours.tensors().items())
    assert ours.summary() == plain.summary()
    report = json.loads((out / "report.json").read_text())
    assert report["retraining"] is None
    assert report["imported"]["origin"]["library"] == "PEFT"
    assert report["imported"]["base"] == folder_digest(bases[0])
    card = (out / "README.md").read_text()
    assert card.startswith("# adapter\n")
    assert "someone/their\\_model as the model that it was trained on" in card
    assert "Cost of retraining" not in card
    assert sorted(path.name for path in out.parent.iterdir()) == ["adapter"]


@pytest.mark.slow
def test_adapterhubs_folders_are_imported_too(tmp_path: Path) -> None:
    oracle = make_adapterhub_oracle(tmp_path)
    convert_pretrained(oracle.base, tmp_path / "k0")
    result = run(oracle.adapters["houlsby"], "--base", tmp_path / "k0", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["imported"]
    assert (found["origin"]["library"], found["origin"]["model"]) == ("AdapterHub", str(oracle.base))
    assert found["origin"]["version"][0].isdigit()
    assert (found["adapter"]["placement"], found["adapter"]["sites"]) == ("houlsby", ["attention", "output"])


def test_report_compares_bases_and_keeps_their_adapters(bases: dict[int, Path], theirs: Path, tmp_path: Path) -> None:
    data, out = write(tmp_path / "a.jsonl", 300), tmp_path / "out"
    arguments = (theirs, "--base", bases[0], "--out", out, *LABELS, "--data", data, "--compare", bases[2], *QUICK)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "retrained-k0 on tiny-k0" in text
    assert "retrained-k2: layers 0, 1 are looked up and have no adapter" in text
    assert " ± " in text
    assert "If the imported adapter was trained on it" in text
    again = read_adapter(tmp_path / "out-retrained-k2", read_spec(bases[2]))
    assert set(again.lora) == {(layer, site) for layer in (2, 3) for site in (Site.Q, Site.V)}
    assert again.rank == 4
    report = json.loads((out / "report.json").read_text())["retraining"]
    assert [each["name"] for each in report["comparisons"]] == ["imported", "retrained-k0", "retrained-k2"]
    assert report["train_examples"] + report["dev_examples"] + report["test_examples"] == 300
    assert report["comparisons"][2]["to_retrained"]["score"]["standard_error"] >= 0
    trained = json.loads((tmp_path / "out-retrained-k2" / "report.json").read_text())
    assert trained["config"]["sites"] == report["config"]["sites"] == ["q", "v"]
    assert trained["examples"] == report["train_examples"]
    card = (out / "README.md").read_text()
    assert "## Cost of retraining" in card
    assert "| retrained, k = 2 |" in card
    names = {"a.jsonl", "theirs", "out", "out-retrained-k0", "out-retrained-k2"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_training_resumes_after_an_interrupt(
    bases: dict[int, Path], theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, dev = write(tmp_path / "a.jsonl", 120), write(tmp_path / "b.jsonl", 20, seed=2)
    arguments = (
        *(theirs, "--base", bases[0], "--out", tmp_path / "out", *LABELS, "--data", data, "--dev", dev),
        *("--compare", bases[2], *QUICK, "--json"),
    )

    def stop(_: object, progress: TrainProgress, words: str) -> None:
        if words.startswith("retrained-k2") and progress.done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hmi.cli.render.ProgressBar.show_training", stop)
        assert run(*arguments).exit_code != 0
    assert not (tmp_path / "out").exists()
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["retraining"]["test_examples"] == 20
    assert json.loads((tmp_path / "out-retrained-k2" / "report.json").read_text())["resumed_at"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_deltas_belong_to_the_bases_in_their_order(bases: dict[int, Path], theirs: Path, tmp_path: Path) -> None:
    made = train_delta(bases[2], [each.text for each in sentences(40, 3)], DeltaConfig(steps=2, batch_size=8))
    (tmp_path / "delta").mkdir()
    save_adapter(made.delta, tmp_path / "delta" / FILE_NAME)
    data = write(tmp_path / "a.jsonl", 200)
    common = (theirs, "--base", bases[0], "--out", tmp_path / "out", *LABELS, "--data", data, *QUICK, "--json")
    twice = ("--compare", bases[2], "--compare", bases[2])
    result = run(*common, *twice, "--delta", "none", "--delta", tmp_path / "delta")
    assert result.exit_code == 0, result.output
    comparisons = json.loads(result.stdout)["retraining"]["comparisons"]
    assert [(each["name"], each["delta"]) for each in comparisons[2:]] == [
        ("retrained-k2", False),
        ("retrained-k2-2", True),
    ]
    result = run(*common[:4], tmp_path / "other", *common[5:], *twice, "--delta", tmp_path / "delta")
    assert result.exit_code == 1
    assert "2 --compare and 1 --delta" in result.output


def test_adapter_is_imported_and_the_report_refused_when_it_has_no_head(bases: dict[int, Path], tmp_path: Path) -> None:
    config = LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=2, target_modules=["key"])
    get_peft_model(BertModel(tiny_bert_config()), config).save_pretrained(str(tmp_path / "theirs"))
    data = write(tmp_path / "a.jsonl", 40)
    result = run(tmp_path / "theirs", "--base", bases[0], "--out", tmp_path / "out", "--data", data)
    assert result.exit_code == 1
    assert "was made, but there is no report: the adapter has no head" in result.stderr
    assert read_adapter(tmp_path / "out", read_spec(bases[0])).head is None
    assert "/v1/embeddings" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("k", "options", "reason"),
    [
        (2, [], "looks 2 lower layers up, and an imported adapter is exact on the ordinary model alone"),
        (0, ["--label", "one"], "1 labels were given, but the head has 2 outputs"),
        (0, ["--compare", "K2"], "which needs --data"),
        (0, ["--data", "DATA"], "does not give: 'no', 'yes'; the adapter's are 'LABEL_0', 'LABEL_1'"),
        (0, ["--data", "DATA", *LABELS, "--compare", "K0"], "has k = 0 and looks nothing up"),
        (0, ["--data", "TAGGED", *LABELS], "line 1: its fields are tokens, tags; expected are text, label"),
    ],
)
def test_nothing_is_made_when_something_does_not_fit(
    bases: dict[int, Path], theirs: Path, tmp_path: Path, k: int, options: list[str], reason: str
) -> None:
    (tmp_path / "tagged.jsonl").write_text('{"tokens": ["w1"], "tags": ["O"]}\n')
    files = {"DATA": write(tmp_path / "a.jsonl", 60), "TAGGED": tmp_path / "tagged.jsonl"}
    paths = {"K0": bases[0], "K2": bases[2], **files}
    named = [str(paths.get(each, each)) for each in options]
    result = run(theirs, "--base", bases[k], "--out", tmp_path / "out", *named)
    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "tagged.jsonl", "theirs"}


def test_unknown_parts_of_a_folder_are_refused_with_the_reason(
    bases: dict[int, Path], theirs: Path, tmp_path: Path
) -> None:
    (theirs / "pytorch_model.bin").write_bytes(b"")
    result = run(theirs, "--base", bases[0], "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "pytorch_model.bin is a pickle file" in result.stderr


@pytest.mark.parametrize("given", [True, False])
def test_model_is_registered_on_the_base_of_the_same_content(
    bases: dict[int, Path], theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    seen: list[tuple[str, str, str, bool]] = []

    def register(_: HmiClient, name: str, *, base: str, domain: str, adapter: Path) -> TenantModelObject:
        seen.append((name, base, domain, (adapter / FILE_NAME).is_file()))
        return filled(TenantModelObject, name=name, revision=3)

    listed = [
        filled(BaseObject, name="other", artifact="0" * 64),
        filled(BaseObject, name="ours", artifact=folder_digest(bases[0])),
    ]
    monkeypatch.setattr(HmiClient, "register_model", register)
    monkeypatch.setattr(HmiClient, "bases", lambda client: listed)
    common = (theirs, "--base", bases[0], *LABELS, "--register", "acme/m", "--url", "http://api.test", "--key", "key")
    options = ("--domain", "movies", "--base-name", "named") if given else ()
    result = run(*common, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert seen == [("acme/m", "named", "movies", True) if given else ("acme/m", "ours", "general", True)]
    assert "acme/m is served (revision 3)" in result.stdout
    listed.clear()
    if not given:
        result = run(*common, "--out", tmp_path / "next")
        assert "no registered base model has the content of" in result.stderr
        assert not (tmp_path / "next").exists()
