"""The model card of an exported encoder: the model, how to load it, its input, and its scores.

in   a `Card` of facts
out  README.md in the format of the Hugging Face hub
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from jinja2 import Environment, PackageLoader, StrictUndefined

from mvssl.data import pattern_list
from mvssl.encoders import Encoder
from mvssl.evaluation.results.records import Record, describe_label, read
from mvssl.evaluation.results.tables import format_value, full_name
from mvssl.recipe import Recipe, ViewConfig, to_yaml
from mvssl.runs.load import LoadedRun, which_weights
from mvssl.text import counted, split_names


@dataclass(frozen=True)
class Card:
    """Facts about an encoder that its weights do not contain.

    `views` describes the input of each view. `mean` and `std` normalise the input: one number per channel, or one for
    all. `interpolation` is the method that resized images. `bands` are the channel names of each view with named
    channels. `source` is the name of the run. `results` are records of `mvssl evaluate`.
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
    def of_run(cls, run: LoadedRun, group: str) -> Self:
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
    """Return the recipe as YAML, without folders of this machine, because model cards are published."""
    data, train = recipe.data.model_copy(update={"root": None}), recipe.train.model_copy(update={"out": run})
    return to_yaml(recipe.model_copy(update={"data": data, "train": train}))


def _describe_view(table: ViewConfig, shape: Sequence[int]) -> str:
    options = [f"{key} {value}" for key, value in table.options.items() if key != "normalize"]
    parts = [f"column {table.source}", str(list(shape)), *options]
    return ", ".join([*parts, f"augment {table.augment}"] if table.augment else parts)


def write_card(file: Path, encoder: Encoder, card: Card, difference: float) -> None:
    """Write README.md. `difference` is the largest difference in output between the trained and the reloaded model."""
    environment = Environment(
        loader=PackageLoader("mvssl.exporting", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    bands = dict.fromkeys(", ".join(names) for names in card.bands.values())
    file.write_text(
        environment.get_template("card.md.j2").render(
            card=card,
            encoder=encoder,
            difference=difference,
            tags=filter(None, ["timm", "self-supervised", "multi-view", *card.objective.split(", ")]),
            millions=sum(p.numel() for p in encoder.model.parameters()) / 1e6,
            steps="" if card.step is None else counted(card.step, "step"),
            weights=", ".join(filter(None, [f"`{card.source}`", which_weights(card.step, card.checkpoint)])),
            imports=needed_imports(encoder),
            channels=" or ".join(bands) or encoder.image[0],
            mean=", ".join(f"{value:.6g}" for value in card.mean),
            std=", ".join(f"{value:.6g}" for value in card.std),
            scores=[
                [full_name(record), *(record[key] for key in ("view", "layer", "encoder", "metric")), _score(record)]
                for record in card.results
            ],
        )
    )


def needed_imports(encoder: Encoder) -> str:
    """Return the modules to import before loading. mvssl is one of them if it registers the architecture in timm."""
    return "mvssl, timm" if type(encoder.model).__module__.startswith("mvssl.") else "timm"


def _score(record: Record) -> str:
    unit = record["unit"]
    return f"{format_value(record['value'], record.get('standard_error'), unit)} {unit}".strip()


def _matching_records(run: LoadedRun) -> list[Record]:
    """Return the records of the exported weights that were measured on the recipe's own shards and label.

    Records of raw inputs and of the untrained encoder are included only if the trained encoder has a record too. After
    an evaluation that ended early it may have none.
    """
    own = {"train": pattern_list(run.recipe.data.train), "test": pattern_list(run.recipe.data.val)}
    label = describe_label(run.recipe)
    records = [
        r
        for r in read(Path(run.folder) / "evaluation.json")
        if r["protocol"].get("label", label) == label and r.get("shards") == own
        if r.get("subject", {}).get("step") == run.step
    ]

    def quantity(record: Record) -> tuple:
        return record["probe"], record.get("what"), record["metric"], record["view"]

    trained = {quantity(r) for r in records if r["encoder"] == "trained"}
    return [r for r in records if quantity(r) in trained]
