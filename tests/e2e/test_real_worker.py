"""End to end with the real engine: `python -m worker`, a tiny seeded model, adapters of several tenants."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from sqlalchemy import update

from hmi.adapters import AdapterKind
from hmi.adapters.formats import save_adapter
from hmi.catalog import JobState, bases, nodes, trees
from hmi.catalog.schema import NgramFrequency
from hmi.models.convert import convert_pretrained
from hmi.spec import read_spec
from hmi.tenant_bits import PUBLIC
from tests.e2e.cluster import Cluster, run_cluster
from tests.engines import random_adapter
from tests.tiny import tiny_bert_folder
from tests.worksite import Worksite, line

TENANTS = ("acme", "umbrella", "wayne")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three tenants with adapters of different kinds in the domain `movies`, and the operator to submit for all."""
    folder = tmp_path / "base"
    convert_pretrained(tiny_bert_folder(tmp_path / "bert"), folder, k=2)
    spec = read_spec(folder)
    with run_cluster(tmp_path, shard_lines=10) as cluster:
        cluster.site.add_base(spec=spec, folder=folder)
        cluster.site.add_domain("movies")
        kinds = (AdapterKind.LORA, AdapterKind.BOTTLENECK, AdapterKind.LORA)
        for number, (tenant, kind) in enumerate(zip(TENANTS, kinds, strict=True)):
            path = tmp_path / f"{tenant}.safetensors"
            save_adapter(random_adapter(spec, kind, rank=4, labels=2 + number, seed=number), path)
            cluster.site.add_tenant(tenant)
            cluster.site.add_model(tenant, domain="movies", adapter=path.read_bytes())
        yield cluster


def submit(site: Worksite, lines: int) -> str:
    requests = [
        line(f"c{n}", f"{TENANTS[n % 3]}/sentiment", f"w{n % 90} w{n % 7} w{n % 31} w{n % 11}") for n in range(lines)
    ]
    return site.submit("operator", requests)


def wait_for_end(cluster: Cluster, batch: str) -> None:
    cluster.wait_until(lambda: cluster.site.has_ended("operator", batch), 120, what=f"the end of {batch}")


def probabilities(site: Worksite, batch: str) -> NDArray[np.float64]:
    """The probabilities of all lines, in the order of their ids."""
    results = site.results("operator", batch)
    assert results.errors == {}
    return np.concatenate([results.answers[custom_id]["data"][0]["probs"] for custom_id in sorted(results.answers)])


def test_answers_are_all_there_and_the_same_when_the_worker_is_killed_and_redis_emptied(cluster: Cluster) -> None:
    cluster.beat()
    doomed = cluster.worker("--name", "doomed")
    batch = submit(cluster.site, 1000)

    def is_midway() -> bool:
        states = [shard.state for shard in cluster.site.shards(batch)]
        return JobState.DONE in states and JobState.LEASED in states

    cluster.wait_until(is_midway, 120, what="a shard's end while another is run")
    assert doomed.end(signal.SIGKILL) == -signal.SIGKILL
    assert not cluster.site.has_ended("operator", batch)
    with redis.Redis.from_url(cluster.site.settings.broker_url.get_secret_value()) as client:
        client.flushall()
    heir = cluster.worker("--name", "heir")
    wait_for_end(cluster, batch)
    found = probabilities(cluster.site, batch)
    assert found.shape == (334 * 2 + 333 * 3 + 333 * 4,)
    assert any(shard.attempt > 1 for shard in cluster.site.shards(batch))

    undisturbed = submit(cluster.site, 1000)
    wait_for_end(cluster, undisturbed)
    np.testing.assert_allclose(probabilities(cluster.site, undisturbed), found, atol=1e-5)
    assert heir.end(signal.SIGTERM) == 0, heir.log


def test_hits_rise_and_answers_stay_when_the_tree_is_rebuilt(cluster: Cluster) -> None:
    site = cluster.site
    cluster.beat()
    cluster.worker()
    first = submit(site, 60)
    wait_for_end(cluster, first)
    with site.database.session(read_only=True) as session:
        base = bases.get_base(session, "base")

    def usage(number: int) -> trees.HitCounts | None:
        with site.database.session(read_only=True) as session:
            return trees.hit_counts(session, base.id, number).get("movies")

    cluster.wait_until(lambda: usage(0), what="the flush")
    with site.database.session() as session:
        session.execute(update(NgramFrequency).values(tenants=PUBLIC))  # one tenant alone asked
        trees.request_rebuild(session, base.id)  # `reconcile` sends it

    def in_use() -> list[int]:
        with site.database.session(read_only=True) as session:
            return [use["number"] for node in nodes.list_nodes(session, 60) for use in node.stats["trees"]]

    cluster.wait_until(lambda: in_use() == [1], what="the new tree")
    second = submit(site, 60)
    wait_for_end(cluster, second)
    cluster.wait_until(lambda: usage(1), what="the flush")
    before, after = usage(0), usage(1)
    assert before is not None
    assert after is not None
    assert (before.hits, after.hits) == (0, after.lookups)
    np.testing.assert_allclose(probabilities(site, second), probabilities(site, first), atol=1e-5)
    with site.database.session(read_only=True) as session:
        (node,) = nodes.list_nodes(session, 60)
    assert node.name.startswith("hmi-cpu@")
    assert node.stats["host"]["entries"] == 3
