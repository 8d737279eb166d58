"""Run the planned probes on every encoder: compute all features, then yield record by record.

in   a subject, its encoders, planned probes, and opened shards
out  records, each as soon as its probe ends
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from rich.console import Console

from mvssl.distributed import collectives
from mvssl.distributed.devices import is_out_of_memory
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.extraction import collect_features
from mvssl.evaluation.features.inputs import ALL, COMPARED, ProbeInputs, distinct_views
from mvssl.evaluation.features.layers import LABELS, EncoderUnderTest, FeatureSpec, compute_features, describe_features
from mvssl.evaluation.features.splits import Classes, Split, SplitSources
from mvssl.evaluation.plan import PlannedProbe, list_needs
from mvssl.evaluation.results.metrics import NotPossible, Result, metric_of
from mvssl.evaluation.results.records import PIXELS, Record, build_record, describe_label, gain_of
from mvssl.evaluation.subject import Subject, describe_origin
from mvssl.runs.versions import versions


@dataclass(frozen=True)
class Measurement:
    """Every planned probe on every encoder and view. `collect_splits` computes the features, `run` the records."""

    subject: Subject
    encoders: list[EncoderUnderTest]
    planned: list[PlannedProbe]
    sources: SplitSources
    views: list[str] | None  # to measure; None: all
    device: torch.device
    seed: int
    batch_size: int
    notes: list[str] = field(default_factory=list)  # why measurements are missing

    def collect_splits(self) -> dict[str, Split]:
        """Return every split with its features, from the cache or computed by all processes.

        Return {} on all processes but the main one.
        """
        subject, device, entries, computed = self.subject, self.device, {}, 0
        recipe, precision = subject.recipe, subject.recipe.evaluate.precision
        images = any(len(shape) == 3 for shape in subject.views.shapes.values())
        read = (each.probe.features(e, each.layer, images=images) for e in self.encoders for each in self.planned)
        specs = list({spec.key: spec for spec in (LABELS, *(spec for own in read for spec in own))}.values())
        for name, source in self.sources.shards.items():
            collected = collect_features(
                source,
                [describe_features(spec, source, recipe.views, device, precision) for spec in specs],
                lambda batch, numbers: compute_features(
                    batch, [specs[n] for n in numbers], subject.views, device, precision
                ),
                batch_size=self.batch_size, workers=recipe.data.workers, device=device, label=f"features of {name}",
            )  # fmt: skip
            if collected is not None:
                entries[name], computed = collected.entries, computed + collected.computed
        # not in the loop: the main process raises if no sample can be used, and the others would wait for it
        needed, sources = list_needs(self.planned).labels, self.sources.shards
        splits = collectives.run_on_main(
            lambda: {name: Split(sources[name], specs, own, needed=needed) for name, own in entries.items()},
            share=False,
        )
        if splits:
            cached = len(splits) * len(specs) - computed
            size = sum(size for _, size, _ in cache.list_entries()) / 2**20
            text = f"features: {computed} computed, {cached} from the cache {cache.folder()}, {size:,.1f} MiB in all"
            Console(stderr=True).print(text, highlight=False, soft_wrap=True)
        return splits or {}

    def run(self, splits: dict[str, Split], classes: Classes) -> Iterator[Record]:
        """Yield the records of every probe on every view of every encoder. The trained encoder is last, with its gain.

        The reasons for measurements that are not possible are added to `notes`.
        """
        subject, recipe = self.subject, self.subject.recipe
        protocol = {
            "seed": self.seed,
            "label": describe_label(recipe),
            "data": {name: split.describe() for name, split in splits.items()},
            "mode": f"frozen, eval mode, {recipe.evaluate.precision}, no augmentation",
        }
        facts = {"n_train": len(splits["train"]), "n_test": len(splits["test"]), "classes_left_out": classes.left_out}
        facts |= {"shards": self.sources.patterns, "versions": versions(), "device": str(self.device)}
        labels, runs = splits["test"].labels, self._list_runs(splits["test"])
        results: dict[tuple[str, ...], Result] = {}
        with Console(stderr=True).status("probing") as status:
            for number, (encoder, each, view) in enumerate(runs, 1):
                passes = f", {each.options['epochs']} passes" if "epochs" in each.options else ""
                status.update(f"{number} of {len(runs)}: {each.name} of {encoder.name} on {view}{passes}")
                layer = encoder.layer(each.layer)
                inputs = ProbeInputs(
                    encoder, layer, view, splits, classes, subject.views, self.device, self.seed,
                    workers=recipe.data.workers, standardise=not each.preset,
                )  # fmt: skip
                origin = describe_origin(subject, encoder, layer, view, standardised=inputs.standardise)
                named = {"layer_called": each.paper_layer} if each.paper_layer and layer == each.layer else {}
                for result in self._run_probe(each, inputs):
                    if result.chance is None and len(labels) and result.metric == metric_of(labels):
                        result = result._replace(chance=classes.chance)
                    key = each.name, view, result.what, result.metric.name, str(each.options)
                    results[encoder.name, layer, *key] = result
                    baselines = {"untrained": layer, "pixels": PIXELS} if encoder.name == "trained" else {}
                    behind = {name: results.get((name, own, *key)) for name, own in baselines.items()}
                    yield build_record(
                        result, probe=each.name, view=view, layer=layer, encoder=encoder.name,
                        gain={name: gain_of(result, other) for name, other in behind.items() if other is not None},
                        **named, subject={"name": subject.name, **subject.facts, "digest": encoder.digest, **origin},
                        protocol={**protocol, **each.protocol(recipe)}, **facts,
                    )  # fmt: skip

    def _list_runs(self, test: Split) -> list[tuple[EncoderUnderTest, PlannedProbe, str]]:
        """Return encoders, probes and views. Raw pixels are equal at every layer, so they are measured once."""
        names = self.views
        if names is None:
            features = test.features(FeatureSpec(self.encoders[-1], self.planned[0].layer), first=COMPARED)
            names = distinct_views(features)
            names += [ALL] * (len(names) > 1)
        runs = {}
        for encoder, view, each in itertools.product(self.encoders, dict.fromkeys([*names, ALL]), self.planned):
            if view in each.probe.views(names) and each.probe.can_run_on(encoder):
                key = encoder.name, view, encoder.layer(each.layer), each.name, str(each.options)
                runs.setdefault(key, (encoder, each, view))
        return list(runs.values())

    def _run_probe(self, each: PlannedProbe, inputs: ProbeInputs) -> list[Result]:
        """Return the finite results of a probe, and add a reason to `notes` for each that is missing."""
        place = f"of {inputs.encoder.name} on {inputs.view}"
        try:
            returned = each.probe(**each.options).run(inputs)
            results = [returned] if isinstance(returned, Result) else list(returned)
        except NotPossible as reason:
            self.notes.append(f"{each.name}: {reason}")
            return []
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # the next measurement may fit, and the trained encoder comes last
            self.notes.append(
                f"{each.name} {place}: it needs more memory than the device has; measure fewer views or a smaller "
                "layer at once (--view, --layer), or use a device with more memory"
            )
            return []
        finite = [result for result in results if math.isfinite(result.value)]
        for result in results:
            if not math.isfinite(result.value):
                self.notes.append(f"{each.name} {result.what} {place}: {result.value}")
        return finite
