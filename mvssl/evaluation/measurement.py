"""Run the planned probes on every encoder: compute all features, then yield record by record.

in   a subject and its opened shards; planned probes
out  records, each as soon as its probe ends
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import is_out_of_memory
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.extraction import collect
from mvssl.evaluation.features.inputs import ALL, ProbeInputs, distinct_views
from mvssl.evaluation.features.layers import PIXELS, EncoderUnderTest, FeatureSpec, compute_features, describe_features
from mvssl.evaluation.features.splits import Classes, Sources, Split, describe_splits
from mvssl.evaluation.plan import PlannedProbe
from mvssl.evaluation.results.metrics import NotPossible, Result, metric_of
from mvssl.evaluation.results.records import Record, build_record, describe_label, gain_of
from mvssl.evaluation.subject import Subject, origin
from mvssl.runs.versions import versions


@dataclass(frozen=True)
class Measurement:
    """The settings that all records of one evaluation share."""

    subject: Subject
    sources: Sources
    seed: int
    batch_size: int
    precision: str
    device: torch.device

    def facts(self, splits: dict[str, Split], classes: Classes) -> dict[str, Any]:
        """Return the keys that are equal in all records of this evaluation."""
        facts = {"n_train": len(splits["train"]), "n_test": len(splits["test"]), "classes_left_out": classes.left_out}
        return facts | {"shards": self.sources.patterns, "versions": versions(), "device": str(self.device)}

    def protocol(self, splits: dict[str, Split]) -> dict[str, Any]:
        """Return the shared entries of the protocol. They must be equal for numbers that are compared."""
        return {
            "seed": self.seed,
            "label": describe_label(self.subject.recipe),
            "data": describe_splits(splits),
            "mode": f"frozen, eval mode, {self.precision}, no augmentation",
        }


def collect_splits(shared: Measurement, specs: list[FeatureSpec], labels: bool) -> dict[str, Split]:
    """Return every split with its features, from the cache or computed by all processes.

    Return {} on all processes but the main one. `labels`: whether a probe needs labels.
    """
    subject, device, precision = shared.subject, shared.device, shared.precision
    sources, entries, computed = shared.sources.shards, {}, 0
    for name, source in sources.items():
        collected = collect(
            source,
            [describe_features(spec, source, subject.recipe.views, device, precision) for spec in specs],
            lambda batch, numbers: compute_features(
                batch, [specs[n] for n in numbers], subject.views, device, precision
            ),
            batch_size=shared.batch_size, workers=subject.recipe.data.workers, device=device,
            label=f"features of {name}",
        )  # fmt: skip
        if collected is not None:
            entries[name], computed = collected.entries, computed + collected.computed
    # not in the loop: the main process raises if no sample can be used, and the others would wait for it
    splits = collectives.run_on_main(
        lambda: {name: Split(sources[name], specs, own, needed=labels) for name, own in entries.items()},
        share=False,
    )
    if splits:
        cached = len(splits) * len(specs) - computed
        size = sum(size for _, size, _ in cache.list_entries()) / 2**20
        text = f"features: {computed} computed, {cached} from the cache {cache.folder()}, {size:,.1f} MiB in all"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    return splits or {}


def measure(
    shared: Measurement,
    planned: list[PlannedProbe],
    encoders: list[EncoderUnderTest],
    splits: dict[str, Split],
    classes: Classes,
    wanted: list[str] | None,
    notes: dict[str, None],
) -> Iterator[Record]:
    """Yield the records of every probe on every view of every encoder. The trained encoder is last, with its gain.

    `wanted` are the views to measure, or None for all. Measurements that are not possible are added to `notes`.
    """
    subject = shared.subject
    own = FeatureSpec(encoders[-1], planned[0].layer)
    names = choose_views(splits["test"].features(own, first=16), wanted)
    facts, protocol = shared.facts(splits, classes), shared.protocol(splits)
    results: dict[tuple, Result] = {}
    with Console(stderr=True).status("probing") as status:
        runs = list(_list_runs(encoders, planned, names))
        for number, (encoder, each, view) in enumerate(runs, 1):
            passes = f", {each.options['epochs']} passes" if "epochs" in each.options else ""
            status.update(f"{number} of {len(runs)}: {each.name} of {encoder.name} on {view}{passes}")
            layer = encoder.layer(each.layer)
            inputs = ProbeInputs(
                encoder, layer, view, splits, classes, subject.views, shared.device, shared.seed,
                workers=subject.recipe.data.workers, standardise=not each.preset,
            )  # fmt: skip
            for result in _run(each, inputs, notes):
                result = _with_chance(result, splits, classes)
                key = each.name, view, result.what, result.metric.name, str(each.options)
                results[encoder.name, layer, *key] = result
                baselines = {"untrained": (layer, *key), "pixels": (PIXELS, *key)} if encoder.name == "trained" else {}
                gains = {o: gain_of(result, results[o, *k]) for o, k in baselines.items() if (o, *k) in results}
                about = origin(subject, encoder, layer, view, standardised=inputs.standardise)
                yield build_record(
                    result, probe=each.name, view=view, layer=layer, encoder=encoder.name, gain=gains,
                    **({"layer_called": each.paper_layer} if each.paper_layer and layer == each.layer else {}),
                    subject={"name": subject.name, **subject.facts, "digest": encoder.digest, **about},
                    protocol={**protocol, **each.protocol(subject.recipe)}, **facts,
                )  # fmt: skip


def _list_runs(
    encoders: list[EncoderUnderTest], planned: list[PlannedProbe], names: list[str]
) -> Iterator[tuple[EncoderUnderTest, PlannedProbe, str]]:
    """Yield encoder, probe and view. Raw pixels are equal at every layer, so they are measured once."""
    done = set()
    for encoder in encoders:
        for view in dict.fromkeys([*names, ALL]):
            for each in planned:
                key = encoder.name, view, encoder.layer(each.layer), each.name, str(each.options)
                if view in each.probe.views(names) and each.probe.can_run_on(encoder) and key not in done:
                    done.add(key)
                    yield encoder, each, view


def _run(each: PlannedProbe, inputs: ProbeInputs, notes: dict[str, None]) -> list[Result]:
    """Return the finite results of a probe, and add a reason to `notes` for each that is missing."""
    place = f"of {inputs.encoder.name} on {inputs.view}"
    try:
        returned = each.probe(**each.options).run(inputs)
        results = [returned] if isinstance(returned, Result) else list(returned)
        for result in results:
            if not math.isfinite(result.value):
                notes[f"{each.name} {result.what} {place}: {result.value}"] = None
        return [result for result in results if math.isfinite(result.value)]
    except NotPossible as reason:
        notes[f"{each.name}: {reason}"] = None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # the next measurement may fit, and the trained encoder comes last
        notes[
            f"{each.name} {place}: it needs more memory than the device has; measure fewer views or a smaller layer "
            "at once (--view, --layer), or use a device with more memory"
        ] = None
    return []


def _with_chance(result: Result, splits: dict[str, Split], classes: Classes) -> Result:
    """Return the result with the score of guessing, if it is of a classifier and has no chance yet."""
    labels = splits["test"].labels
    guessing = result.chance is None and len(labels) and result.metric == metric_of(labels)
    return result._replace(chance=classes.chance) if guessing else result


def choose_views(features: dict[str, Tensor], wanted: list[str] | None) -> list[str]:
    """Return the wanted views; by default all views without duplicates, and `all` if there are several."""
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    names = distinct_views(features)
    return [*names, ALL] if len(names) > 1 else names
