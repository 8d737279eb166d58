"""The model card of an exported encoder: the model, how to load it, its input, and its scores.

in   a `Card` of facts
out  README.md in the format of the Hugging Face hub
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mvssl.data import pattern_list
from mvssl.encoders import Encoder
from mvssl.evaluation.results.records import Record, describe_label, read
from mvssl.evaluation.results.tables import format_value, full_name
from mvssl.recipe import Recipe, ViewConfig, to_yaml
from mvssl.runs.load import which_weights
from mvssl.text import counted, split_names


@dataclass(frozen=True)
class Card:
    """Facts about an encoder that its weights do not contain.

    `views` describes the input of each view. `mean` and `std` normalise it: one number per channel, or one for all.
    `interpolation` is the method that resized images. `bands` are the channel names of views that have them. `source`
    is the name of the run. `results` are records of `mvssl evaluate`.
    """

    views: dict[str, str] = field(default_factory=dict)
    bands: dict[str, list[str]] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    data: str = ""
    objective: str = ""
    recipe: str = ""
    source: str = ""
    step: int | None = None
    checkpoint: str | None = None  # the choice of the caller: last, best or a step
    results: list[Record] = field(default_factory=list)

    @classmethod
    def of_run(cls, run: Any, group: str) -> Self:
        """Return the facts about one encoder of a `LoadedRun`, with the normalisation of its first view."""
        recipe, bases = run.recipe, split_names(group)
        first = run.views.view(bases[0])
        return cls(
            views={base: _describe_view(recipe.views[base], run.views.view(base).shape) for base in bases},
            bands={base: list(names) for base in bases if (names := run.views.view(base).bands)},
            mean=tuple(float(value) for value in first.mean),
            std=tuple(float(value) for value in first.std),
            interpolation=first.interpolation,
            data=str(recipe.data.train),
            objective=", ".join(term.name for term in recipe.objective),
            recipe=publishable_recipe(recipe, run.folder.name),
            source=run.folder.name,
            step=run.step,
            checkpoint=run.which,
            results=_matching_records(run),
        )


def publishable_recipe(recipe: Recipe, run: str) -> str:
    """Return the recipe as YAML without folders of this machine, because cards are published."""
    data, train = recipe.data.model_copy(update={"root": None}), recipe.train.model_copy(update={"out": run})
    return to_yaml(recipe.model_copy(update={"data": data, "train": train}))


def _describe_view(table: ViewConfig, shape: Sequence[int]) -> str:
    options = [f"{key} {value}" for key, value in table.options.items() if key != "normalize"]
    parts = [f"column {table.source}", str(list(shape)), *options]
    return ", ".join([*parts, f"augment {table.augment}"] if table.augment else parts)


def write_card(file: Path, encoder: Encoder, card: Card, difference: float) -> None:
    """Write README.md."""
    parts = [_head(card), _summary(encoder, card), _use(encoder), _input(encoder, card), _scores(card)]
    parts.append(f"## Check\n\nReloaded in timm and compared on random input: largest difference {difference:.1e}.")
    if card.recipe:
        parts.append(f"## Recipe\n\n```yaml\n{card.recipe.strip()}\n```")
    file.write_text("\n\n".join(part for part in parts if part) + "\n")


def _head(card: Card) -> str:
    tags = "".join(
        f"\n- {tag}" for tag in ("timm", "self-supervised", "multi-view", *card.objective.split(", ")) if tag
    )
    return f"---\nlibrary_name: timm\npipeline_tag: image-feature-extraction\ntags:{tags}\n---"


def _summary(encoder: Encoder, card: Card) -> str:
    count = sum(p.numel() for p in encoder.model.parameters()) / 1e6
    trained = f", trained without labels by mvssl with the objective {card.objective}" if card.objective else ""
    steps = f" for {counted(card.step, 'step')}" if card.step is not None else ""
    of = ", ".join(filter(None, [f"`{card.source}`", which_weights(card.step, card.checkpoint)]))
    data = f"\n\nData: `{card.data}`. Run: {of}." if card.data else ""
    vector = encoder.widths.vector
    return f"# {encoder.name}\n\nA backbone with {count:.2f} M parameters and {vector} features{trained}{steps}.{data}"


def imports(encoder: Encoder) -> str:
    """Return the modules to import before loading: mvssl too if it registers the architecture in timm."""
    return "mvssl, timm" if type(encoder.model).__module__.startswith("mvssl.") else "timm"


def _use(encoder: Encoder) -> str:
    first = f"import {imports(encoder)}"
    first += "    # mvssl tells timm this architecture" if "mvssl" in first else ""
    load = 'model = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0).eval()'
    shape = ", ".join(map(str, encoder.shape))
    call = f"vector = model(x)    # x [n, {shape}] -> [n, {encoder.widths.vector}]"
    return f"## Use\n\n```python\n{first}\n{load}\n{call}\n```"


def _input(encoder: Encoder, card: Card) -> str:
    rows = "\n".join(f"| {view} | {text} |" for view, text in card.views.items())
    table = f"| view | from |\n|---|---|\n{rows}\n\n" if rows else ""
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (card.mean, card.std))
    named = list(dict.fromkeys(", ".join(names) for names in card.bands.values()))
    order = f"Channels, in the recipe's order: {' or '.join(named) or encoder.image[0]}. "
    return f"## Input\n\n{table}{order}Normalised as (x - mean) / std with mean {mean} and std {std}."


def _scores(card: Card) -> str:
    if not card.results:
        return ""
    lines = ["| probe | view | layer | encoder | metric | score |", "|---|---|---|---|---|---|"]
    for result in card.results:
        unit = result.get("unit", "")
        score = f"{format_value(result['value'], result.get('standard_error'), unit)} {unit}".strip()
        cells = [str(result.get(key, "")) for key in ("view", "layer", "encoder", "metric")]
        lines.append(f"| {' | '.join([full_name(result), *cells, score])} |")
    return "## Numbers\n\nBy `mvssl evaluate`, with the standard error.\n\n" + "\n".join(lines)


def _matching_records(run: Any) -> list[Record]:
    """Return the records of the exported weights that were measured on the recipe's own shards and label.

    Records of raw inputs and of the untrained encoder are included only beside one of the trained encoder, which is
    missing after an evaluation that ended early.
    """
    own = {"train": pattern_list(run.recipe.data.train), "test": pattern_list(run.recipe.data.val)}
    label = describe_label(run.recipe)
    found = [r for r in read(Path(run.folder) / "evaluation.json") if r["protocol"].get("label", label) == label]
    found = [r for r in found if r.get("subject", {}).get("step") == run.step and r.get("shards") == own]
    rows = [[r.get(key) for key in ("probe", "what", "metric", "view")] for r in found]
    trained = [row for row, r in zip(rows, found, strict=True) if r.get("encoder") == "trained"]
    return [r for row, r in zip(rows, found, strict=True) if row in trained]
