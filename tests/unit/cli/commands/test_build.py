from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hmi.adapters.formats import load_delta
from hmi.cli.main import app
from hmi.models.convert import convert_pretrained
from hmi.models.families import load_hbert
from hmi.spec import read_spec
from tests.tiny import tiny_bert_folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    convert_pretrained(tiny_bert_folder(tmp_path / "source"), tmp_path / "k2", k=2)
    return tmp_path / "k2"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.txt"
    path.write_text("".join(f"w{n % 9} w{n % 7} w{n % 5} w{n % 3}\n" for n in range(40)))
    return path


def test_a_domain_and_the_one_below_get_deltas_when_only_commands_are_used(
    base: Path, text: Path, tmp_path: Path
) -> None:
    options = ["--base", str(base), "--steps", "3", "--rank", "2"]
    runner = CliRunner()
    first, second = tmp_path / "first", tmp_path / "second"
    result = runner.invoke(app, ["build", "domain", str(text), *options, "--out", str(first), "--json"])
    assert result.exit_code == 0, result.output
    said = {"texts", "dev_texts", "before", "after", "losses", "estimate_error", "seconds"}
    assert json.loads(result.stdout).keys() == said
    result = runner.invoke(app, ["build", "domain", str(text), *options, "--out", str(second), "--above", str(first)])
    assert result.exit_code == 0, result.output
    assert "rank 4 on the lower layers from 36 lines" in result.stdout
    for folder, rank in ((first, 2), (second, 4)):
        assert load_delta(folder / "adapter.safetensors", read_spec(base)).rank == rank


def test_a_base_gets_an_estimator_and_a_domain_its_own(base: Path, text: Path, tmp_path: Path) -> None:
    runner, made, out = CliRunner(), tmp_path / "k2e", tmp_path / "domain"
    options = ["--text", str(text), "--steps", "5", "--size", "8"]
    result = runner.invoke(app, ["build", "estimator", str(base), *options, "--out", str(made)])
    assert result.exit_code == 0, result.output
    assert "the estimator of missing rows has a relative error of" in result.stdout
    assert read_spec(made).estimator_size == 8
    result = runner.invoke(app, ["build", "estimator", str(base), *options, "--out", str(made)])
    assert (result.exit_code, "exists already" in result.stderr) == (1, True)
    result = runner.invoke(app, ["build", "domain", str(text), "--base", str(made), "--steps", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "the estimator of missing rows has a relative error of" in result.stdout
    estimator = load_delta(out / "adapter.safetensors", read_spec(made)).estimator
    assert estimator is not None
    assert estimator.size == 8


def test_no_estimator_is_trained_when_k_is_0(text: Path, tmp_path: Path) -> None:
    convert_pretrained(tiny_bert_folder(tmp_path / "source"), tmp_path / "k0", k=0)
    arguments = ["--text", str(text), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["build", "estimator", str(tmp_path / "k0"), *arguments])
    assert (result.exit_code, "looks nothing up" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


def test_existing_folder_is_kept_when_it_is_named_as_output(base: Path, text: Path) -> None:
    result = CliRunner().invoke(app, ["build", "domain", str(text), "--base", str(base), "--out", str(base)])
    assert result.exit_code == 1
    assert "exists already" in result.stderr


def test_reason_is_printed_when_k_is_0(text: Path, tmp_path: Path) -> None:
    convert_pretrained(tiny_bert_folder(tmp_path / "source"), tmp_path / "k0", k=0)
    arguments = ["--base", str(tmp_path / "k0"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["build", "domain", str(text), *arguments])
    assert result.exit_code == 1
    assert "k = 0" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_base_is_made_of_text_and_again_of_the_difference(text: Path, tmp_path: Path) -> None:
    source, learnt = tiny_bert_folder(tmp_path / "source"), tmp_path / "learnt.safetensors"
    options = [
        "--text",
        str(text),
        "--steps",
        "2",
        "--estimator-steps",
        "3",
        "--batch-size",
        "4",
        "--difference-out",
        str(learnt),
    ]
    runner = CliRunner()
    result = runner.invoke(app, ["build", "base", str(source), "--k", "2", "--out", str(tmp_path / "one"), *options])
    assert result.exit_code == 0, result.output
    assert "layer 4" in result.stdout
    assert "held-out lines" in result.stdout
    options = ["--difference", str(learnt), "--json"]
    result = runner.invoke(app, ["build", "base", str(source), "--out", str(tmp_path / "two"), *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["spec"]["k"] == 2
    one, two = (load_hbert(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_k_of_the_difference_is_named_when_another_is_asked_for(text: Path, tmp_path: Path) -> None:
    source, learnt = tiny_bert_folder(tmp_path / "source"), tmp_path / "learnt.safetensors"
    options = [
        "--text",
        str(text),
        "--steps",
        "1",
        "--estimator-steps",
        "1",
        "--batch-size",
        "4",
        "--difference-out",
        str(learnt),
    ]
    runner = CliRunner()
    runner.invoke(app, ["build", "base", str(source), "--k", "2", "--out", str(tmp_path / "one"), *options])
    options = ["--difference", str(learnt), "--k", "1", "--out", str(tmp_path / "two")]
    result = runner.invoke(app, ["build", "base", str(source), *options])
    assert result.exit_code == 1
    assert "k = 2" in result.stderr


def test_a_base_is_only_converted_without_text(tmp_path: Path) -> None:
    source = tiny_bert_folder(tmp_path / "source")
    result = CliRunner().invoke(app, ["build", "base", str(source), "--k", "2", "--out", str(tmp_path / "k2")])
    assert result.exit_code == 0, result.output
    assert "without --text" in result.stderr
    assert not read_spec(tmp_path / "k2").distilled


@pytest.mark.parametrize(
    ("command", "option", "value", "said"),
    [
        ("base", "--seed", "-1", "--seed"),
        ("base", "--out", "file/out", "cannot write"),
        ("base", "--difference-out", "file/out", "cannot write"),
        ("base", "--k", "0", "nothing to learn from text"),
        ("estimator", "--seed", str(2**31), "--seed"),
        ("estimator", "--out", "n" * 300, "cannot write"),
        ("domain", "--seed", "-1", "--seed"),
        ("domain", "--out", "file/out", "cannot write"),
        ("domain", "--learning-rate", "-1", "learning_rate must be a number above 0"),
        ("domain", "--learning-rate", "1e4", "is not finite; take a lower learning rate"),
        ("domain", "--above", "nosuch", "cannot read"),
        ("domain", "--teacher-adapter", "nosuch", "cannot read"),
    ],
)
def test_an_impossible_option_is_refused(
    base: Path, text: Path, tmp_path: Path, command: str, option: str, value: str, said: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    usual = {
        "base": ["base", str(tmp_path / "source"), "--text", str(text), "--k", "2", "--estimator-steps", "0"],
        "estimator": ["estimator", str(base), "--text", str(text)],
        "domain": ["domain", str(text), "--base", str(base)],
    }
    a_path = option.startswith(("--out", "--difference", "--above", "--teacher"))
    given = ["--steps", "30", "--out", str(tmp_path / "out"), option, str(tmp_path / value) if a_path else value]
    result = CliRunner().invoke(app, ["build", *usual[command], *given])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
