"""kNN accuracy against CPU minutes: a recipe beside lightly's SimCLR, BYOL and VICReg on the same encoder and images.

in   a recipe with one image view, `count: 2`, and labelled shards; `pip install lightly` for the other methods
out  for each method the kNN accuracy after each eighth of the minutes, and the number of images used so far

Time is the CPU time of this process on one thread: loading, decoding and views count, measuring kNN does not. Methods
take turns of some seconds, so that other load on the machine slows all of them. All have the same minutes, batch size,
precision and optimizer, and a learning rate that falls to 0 at the end.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Subset

from mvssl.bench.rivals.lightly import build_rival
from mvssl.bench.timing import CPU, FOREVER, Method, check_output_files, estimate_steps, finish_result
from mvssl.data import Batch, ShardSource, sequential_loader
from mvssl.data.order import spread_indices
from mvssl.errors import RecipeError
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.features.splits import open_labelled
from mvssl.evaluation.probes.knn import knn
from mvssl.files import MEASURED, write_picture
from mvssl.recipe import Recipe
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer

METHODS = ("ours", "simclr", "byol", "vicreg")
CHECKS = 8  # points of a curve
TURN = 10.0  # seconds of CPU time in one turn of a method


def bench_rivals(
    recipe: Recipe, *, minutes: float = 20.0, methods: tuple[str, ...] = METHODS, neighbours: int = 20_000,
    json_file: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train each method for `minutes`, and measure kNN with `neighbours` training images.

    Raise `RecipeError` if lightly is not installed, or the recipe sets what the other methods do not have.
    """
    _refuse(recipe)
    picture = check_output_files(json_file)
    torch.set_num_threads(1)
    # without workers, so that the CPU time of this process counts everything
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": 0})})
    source = next(iter(recipe.views.values())).source
    train, test = (
        open_labelled(recipe.data, patterns, {source: recipe.data.columns[source]})
        for patterns in (recipe.data.train, recipe.data.val)
    )
    runners: dict[str, Method] = {}
    for name in methods:
        torch.manual_seed(recipe.train.seed)
        runners[name] = build_ours(recipe) if name == "ours" else build_rival(name, recipe, train, source)
    curves: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    knn_settings = {"k": 20, "temperature": 0.07, "neighbours": neighbours, "test": len(test)}
    result = {"bench": "rivals", "minutes": minutes, "curves": curves, **_describe(recipe), "knn": knn_settings}
    turns = max(1, round(minutes * 60 / CHECKS / TURN))
    for check in range(CHECKS):
        finish_result(result, CPU, json_file)
        for turn in range(1, turns + 1):
            for method in runners.values():
                method.train((check + turn / turns) / CHECKS, minutes * 60)
        for name, method in runners.items():
            measured = knn(
                encode_labelled(method.encode, train, neighbours), encode_labelled(method.encode, test, len(test))
            )
            point = {"minutes": method.spent / 60, "images": method.steps * recipe.data.batch_size}
            point |= {"accuracy": measured.value, "standard_error": measured.standard_error or 0.0}
            curves[name].append(point)
            print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in point.items()), flush=True)
    finish_result(result, CPU, json_file)
    if picture is not None:
        draw_accuracy(result, picture)
    return result


def _refuse(recipe: Recipe) -> None:
    view, encoder = next(iter(recipe.views.values())), next(iter(recipe.encoder.values()))
    for fault, wanted in (
        (len(recipe.views) > 1 or view.count < 2, f"one image view with count: 2 or more, not {[*recipe.views]}"),
        (recipe.data.label is None or not recipe.data.val, "labels to measure kNN: data.label and data.val"),
        (encoder.pretrained or encoder.init_from, "an encoder without pretrained weights, as the other methods have"),
        (view.name != "image", f"a view of images, not {view.name}"),
        (recipe.optim.clip is not None, "no optim.clip, which the other methods do not have"),
    ):
        if fault:
            raise RecipeError(f"bench rivals needs {wanted}")


def _describe(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that all methods share, and those of the recipe's own."""
    return {
        "encoder": next(iter(recipe.encoder.values())).model_dump(mode="json", exclude_none=True),
        "view": {name: view.model_dump(mode="json", by_alias=True) for name, view in recipe.views.items()},
        "objectives": [term.model_dump(mode="json") for term in recipe.objective],
        "optim": recipe.optim.model_dump(mode="json"),
        "precision": recipe.train.precision,
        "batch_size": recipe.data.batch_size,
        "seed": recipe.train.seed,
    }


def draw_accuracy(result: dict[str, Any], out: Path) -> None:
    """Draw the curves to `out`."""
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    for (name, points), marker in zip(result["curves"].items(), "osDv^P", strict=False):
        minutes, accuracy = ([point[key] for point in points] for key in ("minutes", "accuracy"))
        axes.plot(minutes, [100 * value for value in accuracy], marker=marker, markersize=4, label=name)
        axes.annotate(f" {100 * accuracy[-1]:.1f}", (minutes[-1], 100 * accuracy[-1]), va="center")
    axes.set(xlabel="CPU minutes", ylabel="kNN accuracy, %", xlim=(0, 1.08 * result["minutes"]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_picture(figure, out, MEASURED.hint)


def encode_labelled(encode: Callable[[Batch], Tensor], shards: ShardSource, samples: int) -> Labelled:
    """Return features and labels of `samples` samples, spread evenly over the shards."""
    vectors, labels = [], []
    subset = Subset(shards, spread_indices(len(shards), samples).tolist())  # pyright: ignore[reportArgumentType]
    for batch in sequential_loader(subset, batch_size=256):
        with torch.inference_mode():
            vectors.append(encode(batch).float())
        labels.append(batch.columns["label"].long())
    return Labelled(torch.cat(vectors), torch.cat(labels))


def build_ours(recipe: Recipe) -> Method:
    """Return the recipe as a method; its steps are those of `mvssl train`."""
    trainer = prepare_trainer(recipe, make_accelerator(recipe, cpu=True))
    batches, numbers = iter(trainer.batches(0, FOREVER, draw_seed=trainer.recipe.train.seed)), itertools.count()

    def step(share: float) -> None:
        number = next(numbers)
        trainer.steps = estimate_steps(number, share, recipe.optim.warmup)
        trainer.wrapped.train()
        trainer.step(next(batches), number)

    def encode(batch: Batch) -> Tensor:
        trainer.wrapped.eval()
        (features,) = trainer.model.encode(trainer.views.clean(batch, CPU)).values()
        return features.vector

    return Method(step, encode)
