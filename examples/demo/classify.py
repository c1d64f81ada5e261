"""The story of `hmi demo`: tenants of four domains classify sentences with adapters on one BERT."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI

from examples.data import DOMAINS, Part, Sentence, fetch_sentences, read_sentences, thinned
from examples.demo import register
from examples.demo.batches import BatchRun, Comparison, compare, run_batch, write_batch
from examples.demo.figures import (
    BatchFigures,
    DemoFigures,
    TenantFigures,
    accuracy_table,
    batch_figures,
    hit_table,
    residency_table,
    tenant_figures,
    throughput_line,
)
from examples.demo.models import MadeAdapter, MadeBase, make_adapters, make_bases
from examples.demo.steps import Steps
from examples.demo.tenants import LOOKED_UP, Portion, Scale, portions
from examples.demo.trees import TreeWatch
from hmi.cli.client import HmiClient
from hmi.cli.local import Services
from hmi.cli.render import domain_tree, knowledge_tree
from hmi.errors import HmiError

__all__ = ["ClassifyStory", "DemoText", "read_text"]

_REPORT_SECONDS = 60


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
        steps.say(f"from the package vaderSentiment 3.0, which pip fetches once into {cache}")
        with steps.progress("fetching the text"):
            archive, _ = fetch_sentences(cache)
        sentences = read_sentences(archive)
        steps.say(", ".join(f"{domain} {len(each):,}" for domain, each in sentences.items()) + " rated sentences")
        return DemoText(sentences, portions(sentences, scale))


class ClassifyStory:
    """The steps on running services. All of them go through the API."""

    def __init__(self, services: Services, steps: Steps, text: DemoText, scale: Scale, device: str) -> None:
        self._steps = steps
        self._text = text
        self._scale = scale
        self._device = device
        self._folder = services.data_dir / "demo"
        self._folder.mkdir(exist_ok=True)
        self._client = HmiClient(services.api_url, services.admin_key)
        self._openai = OpenAI(base_url=f"{services.api_url}/v1", api_key=services.admin_key)

    def run(self) -> DemoFigures:
        """Raises `HmiError` if a step fails."""
        with self._client, self._openai:
            bases = self._make_bases()
            adapters = self._train(bases)
            watch = TreeWatch(self._client, self._steps)
            self._first_tree(watch)
            first, first_figures = self._batch(watch, "One batch with every tenant's test sentences")
            tenants = self._accuracy(first, adapters)
            self._steps.show(hit_table([first_figures]))
            self._residency(tenants, lines=len(first.answers))
            self._rebuild(watch)
            second, second_figures = self._batch(watch, "The same batch again: the tree has all of its n-grams now")
            self._steps.show(knowledge_tree(watch.read()))
            self._steps.show(hit_table([first_figures, second_figures]))
            comparison = self._compare(first, second)
            return self._figures(tenants, (first_figures, second_figures), comparison)

    def _make_bases(self) -> dict[str, MadeBase]:
        steps = self._steps
        with steps.step("Base models from MiniLM-L6: 3 layers looked up (k = 3), and none (k = 0)"):
            training = [each for domain in self._text.sentences for each in self._text.training(domain)]
            with steps.progress("converting"):
                bases = dict(make_bases(self._folder / "bases", training, self._device))
            for name, base in bases.items():
                kind = f"the lower {base.k} layers see 3-token windows" if base.k else "the ordinary model"
                steps.say(f"{name}: {kind}{' (made by an earlier run)' if base.reused else ''}")
                if base.error:
                    how = "distilled" if base.distilled else "fitted"
                    steps.say(
                        f"{' ' * len(name)}  error of the last layer's states against the full model: "
                        f"{base.error[0]:.2f} as converted, {base.error[1]:.2f} {how}"
                    )
            with steps.progress("uploading"):
                new = register.register_bases(self._client, bases)
            steps.say(_registered(new, len(bases), "base models"))
            steps.say(_registered(register.register_domains(self._client), len(DOMAINS), "domains"))
            steps.show(domain_tree({each.name: each.parent for each in self._client.domains()}))
        return bases

    def _train(self, bases: Mapping[str, MadeBase]) -> dict[str, MadeAdapter]:
        steps, tenants = self._steps, self._scale.tenants
        made = {}
        with steps.step(f"{len(tenants)} tenants, each with an adapter and head trained on its own sentences"):
            steps.say(_registered(register.register_tenants(self._client, tenants), len(tenants), "tenants"))
            new = 0
            with steps.progress("training", "adapters") as bar:
                making = make_adapters(
                    self._folder / "adapters",
                    self._scale,
                    self._text.dealt,
                    bases,
                    self._device,
                    on_progress=lambda done: bar.show(done, len(tenants)),
                )
                with contextlib.closing(making):
                    for tenant, adapter in making:
                        made[tenant.name] = adapter
                        new += register.register_model(self._client, tenant, adapter.folder)
            seconds = [each.seconds for each in made.values() if not each.reused]
            if seconds:
                mean = sum(seconds) / len(seconds)
                steps.say(f"{len(seconds)} adapters trained, {mean:.1f} s each, one on each core")
            if len(seconds) < len(made):
                steps.say(f"{len(made) - len(seconds)} adapters were trained by an earlier run")
            steps.say(_registered(new, len(made), "models"))
            seen = register.check_isolation(self._client, tenants[0], tenants)
            steps.say(f"the key of {tenants[0].name} shows {', '.join(seen)} and no model of another tenant")
        return made

    def _first_tree(self, watch: TreeWatch) -> None:
        counted = self._folder / "counted"  # written once the tree has the training text
        with self._steps.step("The first knowledge tree, from the n-grams of the training text"):
            if counted.exists() and watch.number:
                self._steps.say(f"an earlier run left tree {watch.number}, which has that run's test sentences too")
            else:
                for domain in self._text.sentences:
                    sentences = thinned(self._text.training(domain), self._scale.most_counted)
                    watch.count(domain, [each.text for each in sentences])
                    self._steps.say(f"{len(sentences):,} sentences counted for {domain}")
                watch.rebuild()
                counted.touch()
            self._steps.show(knowledge_tree(watch.read()))

    def _batch(self, watch: TreeWatch, title: str) -> tuple[BatchRun, BatchFigures]:
        with self._steps.step(title):
            path = self._folder / "batch.jsonl"
            write_batch(path, self._scale.tenants, self._text.dealt)
            number, before = watch.settle(), watch.hits()
            run = run_batch(self._openai, path, self._steps)
            tokens = self._looked_up(run)
            figures = batch_figures(run, number, watch.hits_since(number, before, tokens))
            self._steps.say(throughput_line(figures))
            self._steps.say(f"{100 * figures.hit_rate:.1f} % of {tokens:,} n-grams were found in tree {number}")
        return run, figures

    def _looked_up(self, run: BatchRun) -> int:
        """The tokens of a run whose base model looks layers up, which is the number of lookups."""
        names = {tenant.name for tenant in self._scale.tenants if tenant.base == LOOKED_UP}
        return sum(each.tokens for line, each in run.answers.items() if line.rpartition("-")[0] in names)

    def _accuracy(self, run: BatchRun, adapters: Mapping[str, MadeAdapter]) -> list[TenantFigures]:
        dealt = self._text.dealt
        tenants = [tenant_figures(each, dealt[each.name], adapters[each.name], run) for each in self._scale.tenants]
        self._steps.say("accuracy of each tenant's model, and of always answering its most frequent label (maj.):")
        self._steps.show(accuracy_table(tenants))
        return tenants

    def _residency(self, tenants: Sequence[TenantFigures], lines: int) -> None:
        with self._steps.step("Where the adapters are"):
            # Workers report every few seconds; the last report may be from before the batch.
            self._steps.wait(
                lambda: sum(int(node.stats.get("sequences", 0)) for node in self._client.nodes()) >= lines,
                _REPORT_SECONDS,
                what="the worker's report",
            )
            on_disk = sum(each.adapter_bytes for each in tenants)
            self._steps.show(residency_table(len(tenants), on_disk, self._client.nodes()))

    def _rebuild(self, watch: TreeWatch) -> None:
        with self._steps.step("The knowledge tree rebuilt, now with the n-grams of the batch"):
            # A shared table holds what several tenants asked for. These sentences are public, and the operator says so.
            for tenant in self._scale.tenants:
                watch.count(tenant.domain, [each.text for each in self._text.dealt[tenant.name].test])
            self._steps.say("the operator counted the test sentences as public text: of the tenants' own,")
            self._steps.say("a shared table holds only n-grams that several tenants asked for")
            before, tree = watch.number, watch.rebuild()
            built = list(tree.report.get("domains", {}).values())
            copied, computed = (sum(int(each.get(how, 0)) for each in built) for how in ("copied", "computed"))
            self._steps.say(
                f"tree {tree.number} replaces tree {before}: {copied:,} rows copied from it, {computed:,} computed"
            )

    def _compare(self, first: BatchRun, second: BatchRun) -> Comparison:
        """Raises `HmiError` (code `answers_differ`) if a label changed by more than rounding."""
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

    def _figures(
        self, tenants: Sequence[TenantFigures], batches: tuple[BatchFigures, ...], comparison: Comparison
    ) -> DemoFigures:
        nodes = self._client.nodes()
        return DemoFigures(
            seconds=self._steps.seconds,
            steps=tuple(self._steps.taken),
            tenants=tuple(tenants),
            mean_accuracy=sum(each.accuracy for each in tenants) / len(tenants),
            mean_majority=sum(each.majority for each in tenants) / len(tenants),
            batches=batches,
            comparison=comparison,
            adapter_bytes_on_disk=sum(each.adapter_bytes for each in tenants),
            nodes={node.name: {key: node.stats.get(key) for key in ("host", "on_device")} for node in nodes},
        )


def _registered(new: int, total: int, what: str) -> str:
    if new == total:
        return f"{new} {what} registered"
    return f"{new} {what} registered, {total - new} were there already"
