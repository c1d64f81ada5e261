"""What one tenant asked for, below the number of tenants that a shared n-gram needs, changes nothing for the others.

Two catalogs differ in the texts of one tenant alone. The same happens to both: tenants ask, counts are flushed and
trimmed, builds end or are killed, domains move, tenants are deleted. Published tables must be equal byte for byte, and
so must all answers of the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from hmi.adapters.formats import save_adapter
from hmi.catalog import Audience, deltas, domains, models, tenants, trees
from hmi.catalog.trees import frequencies, trimming
from hmi.engine import Engine, EngineConfig
from hmi.errors import InvalidInput
from hmi.items import Item, Task
from hmi.models.convert import convert_pretrained
from hmi.spec import MissPolicy, Site, read_spec
from hmi.tenant_bits import bitmap_of
from tests.adapter_samples import lora_adapter
from tests.engines import numbers
from tests.estimators import random_estimator, with_estimator
from tests.rebuilding import base_id
from tests.runtimes import running
from tests.tiny import tiny_bert_folder
from tests.worksite import Worksite
from worker.lifecycle import BuildPoint
from worker.runtime import Runtime
from worker.shards.answers import _ref
from worker.trees import build_job, monitor, rebuild

VICTIM, CURIOUS, OTHERS = "victim", "curious", ("ann", "bob", "eve")
DOMAINS = ("general", "reviews", "movies", "news")
VAULT = "vault"  # the victim's own, below movies
COMMON = range(6)  # words of all tenants
SECRET = range(20, 28)  # words of the victim; the curious tenant guesses
OTHER_SECRET = 10  # added to a secret word: the victim's words in the second catalog, where the volume is the same
POINTS = [point for point in BuildPoint if point not in (BuildPoint.BEGUN, BuildPoint.PUBLISHED)]
LIMITS = trees.FrequencyLimits(30, 80)  # rows of a place, and of all; few enough for trims to delete some
VOCABULARY = 100
START = 1_700_000_000.0
HALF_LIFE = 30.0  # steps


class BuildKilled(BaseException):
    pass


@dataclass(frozen=True)
class Ask:
    tenant: str
    domain: str
    policy: MissPolicy
    words: tuple[int, ...]
    instead: tuple[int, ...] = ()  # of the victim in the second catalog; empty: it does not ask there

    @property
    def is_secret(self) -> bool:
        return any(word in SECRET for word in self.words)


@dataclass(frozen=True)
class Build:
    killed_at: BuildPoint | None = None


@dataclass(frozen=True)
class Move:
    domain: str
    parent: str


@dataclass(frozen=True)
class Delete:
    tenant: str


class Upkeep(StrEnum):
    FLUSH = "flush"
    TRIM = "trim"


Step = Ask | Build | Move | Delete | Upkeep


class Catalog:
    """One of the two, with a worker that has the real engine."""

    def __init__(self, site: Worksite, runtime: Runtime) -> None:
        self._site = site
        self._runtime = runtime
        self._deleted: set[str] = set()

    def do(self, step: Step) -> bytes:
        """Return the answer, where the step asks for one."""
        match step:
            case Ask() if step.words and step.tenant not in self._deleted:
                return self._ask(step)
            case Build():
                self._build(step.killed_at)
            case Move():
                with self._site.database.session() as session, contextlib.suppress(InvalidInput):
                    domains.move_domain(session, step.domain, step.parent)  # unless the parent is below it
            case Delete() if step.tenant not in self._deleted:
                self._deleted.add(step.tenant)
                with self._site.database.session() as session:
                    tenants.delete_tenant(session, step.tenant)
            case Upkeep():
                self._runtime.flusher.flush()
                if step is Upkeep.TRIM:
                    trees.trim_frequencies(self._site.database, LIMITS)
            case _:
                pass
        return b""

    def tables(self) -> dict[str, str]:
        """Content digests of the served tables, without the victim's own."""
        with self._site.database.session(read_only=True) as session:
            found = trees.published(session, base_id(self._site))
        assert found is not None
        return {domain: each for domain, each in found.tables.items() if domain != VAULT}

    def entries(self) -> int:
        with self._site.database.session(read_only=True) as session:
            report = trees.versions(session, base_id(self._site))[0].report
        return sum(each["entries"] for each in report["domains"].values())

    def _ask(self, ask: Ask) -> bytes:
        """Submit a text as a shard does."""
        name = f"{ask.tenant}/{ask.domain}-{ask.policy}"
        with self._site.database.session(read_only=True) as session:
            principal = tenants.principal_of(session, tenants.get_tenant(session, ask.tenant).id)
            model = models.resolve(session, [name], principal)[name]
        self._runtime.source.refresh_open(self._runtime.engine)
        text = " ".join(f"w{word}" for word in ask.words)
        item = Item(_ref(model), Task.EMBED, text=text, requester=bitmap_of(model.tenant_bit))
        (answer,) = numbers(self._runtime.engine.submit([item]).result(60))
        return bytes(answer.tobytes())

    def _build(self, killed_at: BuildPoint | None) -> None:
        def fail(point: BuildPoint) -> None:
            if point is killed_at:
                raise BuildKilled

        with pytest.MonkeyPatch.context() as patch:
            for module in (build_job, monitor):
                patch.setattr(module, "fail_at", fail)
            rebuild(self._runtime, "base")


class World:
    """What both catalogs of every example are made of."""

    def __init__(self, folder: Path, migrated: Path, redis_url: str, *, estimates: bool) -> None:
        self._folder, self._migrated, self._redis_url = folder, migrated, redis_url
        self._base = folder / "base"
        convert_pretrained(tiny_bert_folder(folder / "bert"), self._base, k=2)
        if estimates:
            with_estimator(self._base, random_estimator(32, seed=1))
        self._spec = read_spec(self._base)
        lower = dataclasses.replace(self._spec, k=0, layers=2, estimator_size=0)
        (folder / "delta").mkdir()
        delta = lora_adapter(np.random.default_rng(3), 2, spec=lower, sites=(Site.V,))
        save_adapter(delta, folder / "delta" / "adapter.safetensors")
        self._made = itertools.count()

    @contextlib.contextmanager
    def catalog(self, *, node_bytes: int, has_delta: bool) -> Iterator[Catalog]:
        folder = self._folder / f"{next(self._made)}"
        folder.mkdir()
        shutil.copy(self._migrated, folder / "catalog.db")
        url = f"sqlite:///{folder / 'catalog.db'}"
        changes = {"tree_node_bytes": node_bytes, "frequency_half_life_seconds": HALF_LIFE}
        site = Worksite(folder / "data", url, self._redis_url, **changes)
        site.add_base(spec=self._spec, folder=self._base)
        for domain in DOMAINS[1:]:
            site.add_domain(domain)
        for tenant in (VICTIM, CURIOUS, *OTHERS):
            site.add_tenant(tenant)
        with site.database.session() as session:
            domains.create_domain(session, VAULT, "movies", owner=VICTIM, audience=Audience.PRIVATE)
            if has_delta:
                artifact = site.artifacts.put_folder(self._folder / "delta")
                deltas.set_delta(session, base_id(site), "reviews", artifact, {})
        for tenant in (VICTIM, CURIOUS, *OTHERS):
            for domain in (*DOMAINS, *([VAULT] if tenant == VICTIM else [])):
                for policy in MissPolicy:
                    site.add_model(tenant, f"{domain}-{policy}", domain=domain, miss_policy=policy)
        config = EngineConfig(device="cpu", dtype="float32", threads=1, device_adapter_bytes=4 * 1024**2)
        with running(site, make_engine=lambda source: Engine(config, source)) as runtime:
            runtime.load_bases()
            yield Catalog(site, runtime)
        site.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["shorter n-grams", "estimates"])
def world(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    migrated_sqlite: Path,
    redis_service: str,
) -> World:
    return World(tmp_path_factory.mktemp("world"), migrated_sqlite, redis_service, estimates=request.param)


COMMON_TEXTS = st.lists(st.sampled_from(COMMON), min_size=1, max_size=4).map(tuple)
# Every window of these has a secret word, so none is asked for by any tenant but the victim and the curious one.
SECRET_TEXTS = st.lists(st.sampled_from(SECRET), min_size=1, max_size=3).flatmap(
    lambda secret: st.lists(st.sampled_from(COMMON), min_size=len(secret) - 1, max_size=len(secret) - 1).map(
        lambda common: tuple(w for pair in itertools.zip_longest(secret, common) for w in pair if w is not None)
    )
)
POLICIES = st.sampled_from(MissPolicy)
ASKS = st.one_of(
    st.builds(Ask, st.sampled_from((*OTHERS, CURIOUS)), st.sampled_from(DOMAINS), POLICIES, COMMON_TEXTS),
    st.builds(Ask, st.just(CURIOUS), st.sampled_from(DOMAINS), POLICIES, SECRET_TEXTS),
)
VICTIMS_ASKS = st.one_of(
    st.builds(
        Ask,
        st.just(VICTIM),
        st.sampled_from((*DOMAINS, VAULT)),
        POLICIES,
        SECRET_TEXTS,
        st.one_of(st.just(()), SECRET_TEXTS),
    ),
    COMMON_TEXTS.flatmap(
        lambda text: st.builds(Ask, st.just(VICTIM), st.sampled_from(DOMAINS), POLICIES, st.just(text), st.just(text))
    ),
)
STEPS = st.lists(
    st.one_of(
        ASKS,
        ASKS,
        VICTIMS_ASKS,
        VICTIMS_ASKS,
        st.builds(Build, st.one_of(st.none(), st.sampled_from(POINTS))),
        st.builds(Move, st.sampled_from(DOMAINS[1:]), st.sampled_from(DOMAINS)),
        st.builds(Delete, st.sampled_from((VICTIM, *OTHERS))),
        st.sampled_from(Upkeep),
    ),
    min_size=4,
    max_size=24,
)


def _in_second(step: Step, *, same_volume: bool) -> Step:
    if not isinstance(step, Ask) or step.tenant != VICTIM or not step.is_secret:
        return step
    if same_volume:
        others = tuple(word + OTHER_SECRET if word in SECRET else word for word in step.words)
        return dataclasses.replace(step, words=others)
    return dataclasses.replace(step, words=step.instead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of all counts, so that it is the same in both catalogs; and the same n-grams of equal weight are
    trimmed."""
    now = [START]
    for module in (frequencies, trimming):
        monkeypatch.setattr(module, "database_time", lambda session: now[0])
    monkeypatch.setattr(trimming, "randbelow", lambda stop: 0)
    return now


@settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes: an example is two catalogs
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(  # whether anything was asked in a domain with a delta showed in its unigrams
    steps=[Ask(VICTIM, "reviews", MissPolicy.EXACT, (20,)), Build()],
    shared=[(0, 1)],
    same_volume=False,
    node_bytes=200,
    has_delta=True,
)
@given(
    steps=STEPS,
    shared=st.lists(COMMON_TEXTS, min_size=1, max_size=6),
    same_volume=st.booleans(),
    node_bytes=st.sampled_from([200, 600, 2**20]),
    has_delta=st.booleans(),
)
def test_what_one_tenant_asked_for_changes_nothing_for_the_others(
    world: World,
    clock: list[float],
    steps: list[Step],
    shared: list[tuple[int, ...]],
    same_volume: bool,
    node_bytes: int,
    has_delta: bool,
) -> None:
    clock[0] = START
    asked_by_all = [Ask(tenant, "movies", MissPolicy.EXACT, text) for text in shared for tenant in OTHERS]
    everything: list[Step] = [*asked_by_all, *steps, Build(), *_probes(shared)]
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(world.catalog(node_bytes=node_bytes, has_delta=has_delta)) for _ in range(2))
        for step in everything:
            clock[0] += 1
            if same_volume and isinstance(step, Ask) and step.tenant == CURIOUS and step.is_secret:
                continue  # it would ask for what the victim asked for in one of the catalogs alone
            if not same_volume and step is Upkeep.TRIM:
                continue  # how many rows are deleted depends on how many there are
            answers = one.do(step), two.do(_in_second(step, same_volume=same_volume))
            if not (isinstance(step, Ask) and step.tenant == VICTIM):
                assert answers[0] == answers[1], step
            if isinstance(step, Build) and step.killed_at is None:
                assert one.tables() == two.tables()
        if not any(isinstance(step, Delete) or step is Upkeep.TRIM for step in steps):
            assert one.entries() > VOCABULARY  # what all asked for is held beside the unigrams


def _probes(shared: list[tuple[int, ...]]) -> list[Ask]:
    secrets = [(20,), (21, 0, 20), (27, 3, 22)]
    return [
        Ask(tenant, domain, policy, text)
        for tenant, texts in ((CURIOUS, secrets), (OTHERS[0], shared[:2]))
        for text in texts
        for domain in DOMAINS
        for policy in MissPolicy
    ]
