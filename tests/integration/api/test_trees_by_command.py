"""What an operator sees and changes of trees and domains with the `hmi` command, over SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from hmi.catalog import HitCounts, bases, domains, trees
from hmi.cli.main import app
from hmi.settings import Settings
from tests.apis import Api, run_api
from tests.published_trees import BASE, add_base, count, delta_file, publish
from tests.waiting import wait_until


@pytest.fixture
def api(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    settings = Settings(
        _env_file=None, data_dir=tmp_path / "data", database_url=database_url, broker_url=SecretStr(redis_url)
    )
    with run_api(settings) as api:
        add_base(api.services)
        yield api


def run(api: Api, *arguments: str, who: str = "operator") -> Result:
    options = ["--url", api.url, "--key", api.keys[who]]
    return CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "80"})


def say(api: Api, *arguments: str) -> str:
    result = run(api, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def read(api: Api, *arguments: str) -> Any:
    return json.loads(say(api, *arguments, "--json"))


def test_an_operator_sees_what_trees_hold_and_goes_back(api: Api, tmp_path: Path) -> None:
    assert "movies was created under reviews" in say(api, "domain", "add", "movies", "--parent", "reviews")
    path = delta_file(tmp_path / "delta")
    assert "(rank 2, layers 0," in say(api, "domain", "delta", "set", BASE, "movies", str(path))
    publish(api.services, {"general": [1, 2], "movies": [3]}, {"movies": [1]})
    second = publish(
        api.services,
        {"general": [1, 2, 4], "movies": [5]},
        {"movies": [1]},
        report={"movies": {"predicted_hit_rate": 0.9}},
    )
    count(api.services, "movies", {5: 50, 1: 20, 8: 8})
    with api.services.database.session() as session:
        base, movies = bases.get_base(session, BASE), domains.get_domain(session, "movies")
        trees.record_hits(
            session, {(base.id, second, movies.id): HitCounts(lookups=100, hits=87, inherited=29, approximate=0)}
        )

    shown = say(api, "tree", "show", BASE)
    assert max(map(len, shown.splitlines())) <= 80
    assert f"{BASE}: tree {second}, published" in shown
    (line,) = [each for each in shown.splitlines() if "movies" in each]
    assert line.split()[:1] + line.split()[2:4] == ["└──", "1", "1"]
    assert line.split()[-5:-1] == ["100", "87.0%", "90.0%", "67%"]
    assert "reviews" in say(api, "tree", "show", "movies")  # its ancestor
    assert read(api, "tree", "show", BASE, "--domain", "reviews")[0]["domains"].keys() == {
        "general",
        "reviews",
        "movies",
    }

    (tiny,) = [each["name"] for each in read(api, "base", "list") if each["name"] != BASE]
    refused = run(api, "tree", "top", "movies")
    assert (refused.exit_code, refused.stderr) == (1, f"error: which base model? there are {BASE}, {tiny}\n")
    top = say(api, "tree", "top", "movies", "--base", BASE, "--limit", "2")
    assert [each.split() for each in top.splitlines()[3:5]] == [
        ["w0", "w5", "w1", "50.0", "own", "row"],
        ["w0", "w1", "w1", "20.0", "alias", "of", "general"],
    ]
    after = top.splitlines()[-1].removeprefix("more: --after ")
    assert [each["held"] for each in read(api, "tree", "top", "movies", "-b", BASE, "--after", after)["data"]] == [
        "missing"
    ]

    difference = say(api, "tree", "diff", "1", "2", "--base", BASE)
    assert "movies: 1 added" in difference
    assert "movies: 1 dropped" not in difference  # nothing counts it today, so its text is not shown
    assert "50.0  w0 w5 w1" in difference
    assert read(api, "tree", "diff", "1", "2", "-b", BASE)["domains"]["general"]["added"] == 1

    assert "tree 1 of mini serves" in say(api, "tree", "rollback", BASE)
    versions = say(api, "tree", "versions", BASE)
    assert "* tree 1  published" in versions
    assert "  tree 2  published" in versions
    assert "87.0% of 100 lookups, 90.0% predicted" in versions
    assert "(rolled back)" in say(api, "tree", "show", BASE)
    assert read(api, "tree", "rollback", BASE, "--to", "2")["number"] == second


def test_an_operator_changes_domains_and_deltas(api: Api, tmp_path: Path) -> None:
    say(api, "domain", "add", "movies", "--parent", "reviews")
    say(api, "domain", "move", "movies", "--parent", "general")
    assert say(api, "domain", "list").splitlines() == ["general", "├── movies", "└── reviews"]
    assert read(api, "domain", "move", "movies", "--parent", "reviews")["parent"] == "reviews"
    assert run(api, "domain", "move", "reviews", "--parent", "movies").exit_code == 1

    assert "no domain has a delta" in say(api, "domain", "delta", "list")
    made = read(api, "domain", "delta", "set", BASE, "movies", str(delta_file(tmp_path / "folder").parent))
    renamed = tmp_path / "movies.safetensors"
    renamed.write_bytes(delta_file(tmp_path / "folder").read_bytes())
    assert read(api, "domain", "delta", "set", BASE, "movies", str(renamed))["artifact"] == made["artifact"]
    assert made["artifact"][:12] in say(api, "domain", "delta", "list", BASE)
    assert read(api, "tree", "show", BASE)[0]["domains"]["movies"]["delta"] == made["artifact"]
    refused = run(api, "domain", "delta", "set", BASE, "movies", str(delta_file(tmp_path / "upper", layer=1)))
    assert refused.exit_code == 1
    assert "lower layers 0..0 only" in refused.stderr
    assert "no delta of its own" in say(api, "domain", "delta", "remove", BASE, "movies")
    assert run(api, "domain", "delta", "remove", BASE, "movies").exit_code == 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("tree", "show", "nothing"), "there is no base model 'nothing', and no domain of that name"),
        (("tree", "show", BASE, "--domain", "nothing"), "there is no domain 'nothing'"),
        (("tree", "rollback", BASE), "has no version to roll back to"),
        (("tree", "rollback", BASE, "--to", "7"), "has no version 7"),
        (("tree", "diff", "1", "2", "--base", BASE), "has no version 1"),
        (("tree", "versions", "nothing"), "there is no base model 'nothing'"),
        (("tree", "top", "nothing", "--base", BASE), "there is no domain 'nothing'"),
    ],
)
def test_a_mistake_is_one_line(api: Api, command: tuple[str, ...], reason: str) -> None:
    result = run(api, *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_tenants_see_nothing_of_trees(api: Api) -> None:
    result = run(api, "tree", "show", who="acme")
    assert (result.exit_code, result.stderr) == (1, "error: this needs an admin key\n")


@contextlib.contextmanager
def rebuilding(api: Api, redis_url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`hmi tree rebuild --wait` as a process of its own, once it has requested the rebuild."""
    command = ["tree", "rebuild", BASE, "--wait", "--url", api.url, "--key", api.keys["operator"], *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "hmi.cli.main", *command], **pipes) as process:
        try:
            with redis.Redis.from_url(redis_url) as broker:
                asked = functools.partial(broker.exists, "hmi:hmi.control")
                wait_until(asked, what="the rebuild in Redis", seconds=120)
            yield process
        finally:
            process.kill()


def test_a_rebuild_is_followed_to_its_end(api: Api, redis_url: str) -> None:
    publish(api.services, {"general": [1]})
    with rebuilding(api, redis_url, "--json") as process:
        publish(api.services, {"general": [1, 2]})
        out, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert (json.loads(out)["number"], json.loads(out)["served"]) == (2, True)


def test_the_build_after_the_running_one_is_waited_for_when_a_rebuild_is_requested(api: Api, redis_url: str) -> None:
    with api.services.database.session() as session:
        base = bases.get_base(session, BASE)
        running = trees.begin_build(session, base.id, 600)
    with rebuilding(api, redis_url) as process:
        with api.services.database.session() as session:
            trees.publish(session, base.id, running, {}, {})
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
        assert publish(api.services, {"general": [1]}) == 2
        out, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert out.startswith(f"tree 2 of {BASE} will contain every count so far, after tree 1, which is being built\n")
    assert f"tree 2 of {BASE} is published" in out


def test_a_rebuild_that_fails_is_reported_with_its_reason(api: Api, redis_url: str) -> None:
    with rebuilding(api, redis_url) as process:
        for reason in ("first", "second", "disk full"):
            with api.services.database.session() as session:
                base = bases.get_base(session, BASE)
                trees.fail_build(session, base.id, trees.begin_build(session, base.id, 600), reason)
        out, log = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, f"tree 1 of {BASE} will contain every count so far\n")
    assert f"error: the rebuild of {BASE}'s tree failed: disk full" in log


def test_waiting_ends_when_the_tree_is_rolled_back(api: Api, redis_url: str) -> None:
    for held in ([1], [1, 2]):
        publish(api.services, {"general": held})
    with rebuilding(api, redis_url) as process:
        assert "tree 3 is requested" in say(api, "tree", "show", BASE)
        say(api, "tree", "rollback", BASE)
        _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: the rebuild of {BASE}'s tree failed: the tree was rolled back" in log


def test_an_operator_and_an_owner_decide_who_uses_a_domain(api: Api, tmp_path: Path) -> None:
    made = say(api, "domain", "add", "vault", "--owner", "acme", "--private")
    assert made == "domain vault was created under general for acme alone\n"
    assert "for acme, rival" in say(api, "domain", "add", "clinics", "--owner", "acme", "--tenant", "rival")
    assert "for acme, rival" in say(api, "domain", "add", "wards", "--parent", "clinics")
    drawn = say(api, "domain", "list").splitlines()
    assert "├── clinics (acme, rival)" in drawn
    assert "└── vault (acme alone)" in drawn
    assert say(api, "domain", "show", "clinics") == "clinics: under general, owned by acme, for acme, rival\n"
    assert "above" in run(api, "domain", "deny", "clinics", "rival", who="acme").stderr
    for domain in ("wards", "clinics"):
        denied = run(api, "domain", "deny", domain, "rival", who="acme")
        assert (denied.exit_code, denied.stdout) == (0, f"{domain} is for acme\n")
    unknown = run(api, "domain", "show", "vault", who="rival")
    assert (unknown.exit_code, unknown.stderr) == (1, "error: there is no domain 'vault'\n")
    assert run(api, "domain", "list", who="rival").stdout == "general\n└── reviews\n"
    assert say(api, "domain", "allow", "clinics", "rival") == "clinics is for acme, rival\n"
    assert say(api, "domain", "audience", "clinics", "--public") == "clinics is for all tenants\n"
    assert say(api, "domain", "audience", "wards", "--tenant", "rival") == "wards is for acme, rival\n"
    for arguments in (("audience", "clinics"), ("add", "x", "--owner", "acme", "--private", "--tenant", "rival")):
        assert run(api, "domain", *arguments).exit_code == 1

    path = str(delta_file(tmp_path / "delta"))
    assert run(api, "domain", "delta", "set", BASE, "vault", path, who="acme").exit_code == 0
    refused = run(api, "domain", "delta", "set", BASE, "reviews", path, "--owner", "acme")
    assert "not published" in refused.stderr
    published = run(api, "domain", "delta", "publish", BASE, "vault", who="acme")
    assert "of vault may be set on other domains now" in published.stdout
    assert run(api, "domain", "delta", "set", BASE, "reviews", path, "--owner", "acme").exit_code == 0
    assert {(each["domain"], each["owner"]) for each in read(api, "domain", "delta", "list")} == {
        ("reviews", "acme"),
        ("vault", "acme"),
    }
