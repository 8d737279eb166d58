"""kNN accuracy against CPU minutes: a recipe beside lightly's SimCLR, BYOL and VICReg on the same encoder and images.

in   a recipe with one image view, `count: 2`, and labelled shards; `pip install lightly` for the other methods
out  for each method the kNN accuracy after each eighth of the minutes, and the number of images used so far

Time is the CPU time of this process on one thread: loading, decoding and views count, measuring kNN does not. Methods
take turns of some seconds, so that other load on the machine slows all of them. All have the same minutes, batch size,
precision and optimizer, and a learning rate that falls to 0 at the end.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Subset

from mvssl.bench.lightly import Method, build_rival
from mvssl.bench.timing import FOREVER, check_json_file, estimate_steps, finish_result
from mvssl.data import Batch, ShardSource, sequential_loader
from mvssl.data.order import spread_indices
from mvssl.errors import RecipeError
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.features.splits import open_labelled
from mvssl.evaluation.probes.knn import knn
from mvssl.evaluation.results.metrics import Result
from mvssl.files import MEASURED, PICTURE, check_output, write_picture
from mvssl.recipe import Recipe
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer

METHODS = ("ours", "simclr", "byol", "vicreg")
CHECKS = 8  # points of a curve
TURN = 10.0  # seconds of CPU time in one turn of a method
CPU = torch.device("cpu")


def bench_rivals(
    recipe: Recipe,
    *,
    minutes: float = 20.0,
    methods: tuple[str, ...] = METHODS,
    neighbours: int = 20_000,
    json_file: str | Path | None = None,
) -> dict[str, Any]:
    """Train each method for `minutes`, and measure kNN with `neighbours` training images.

    Raises `RecipeError` if lightly is not installed, or the recipe sets what the other methods do not have.
    """
    name, view = next(iter(recipe.views.items()))
    _refuse(recipe)
    picture = None if json_file is None else Path(json_file).with_suffix(".png")
    if picture is not None and picture == Path(json_file or ""):
        raise RecipeError(f"--json {json_file}: the picture is drawn to {picture}; choose a name that ends in .json")
    check_json_file(json_file)
    if picture is not None:
        check_output(picture, PICTURE._replace(hint=MEASURED.hint))
    torch.set_num_threads(1)
    # without workers, so that the CPU time of this process counts everything
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": 0})})
    columns = {view.source: recipe.data.columns[view.source]}
    train, test = (open_labelled(recipe.data, patterns, columns) for patterns in (recipe.data.train, recipe.data.val))
    turns = max(1, round(minutes * 60 / CHECKS / TURN))
    runners = {}
    for method in methods:
        torch.manual_seed(recipe.train.seed)
        made = build_ours(recipe) if method == "ours" else build_rival(method, recipe, train, view.source)
        runners[method] = Runner(made, minutes * 60, recipe.data.batch_size)
    result: dict[str, Any] = {
        "bench": "rivals",
        "minutes": minutes,
        "curves": {method: runner.points for method, runner in runners.items()},
        "encoder": next(iter(recipe.encoder.values())).model_dump(mode="json", exclude_none=True),
        "view": {name: view.model_dump(mode="json", by_alias=True)},
        "objectives": [term.model_dump(mode="json") for term in recipe.objective],
        "optim": recipe.optim.model_dump(mode="json"),
        "precision": recipe.train.precision,
        "batch_size": recipe.data.batch_size,
        "seed": recipe.train.seed,
        "knn": {"k": 20, "temperature": 0.07, "neighbours": neighbours, "test": len(test)},
    }
    for check in range(1, CHECKS + 1):
        finish_result(result, CPU, json_file)
        for turn in range(1, turns + 1):
            for runner in runners.values():
                runner.train((check - 1 + turn / turns) / CHECKS)
        for method, runner in runners.items():
            bank, queries = (
                encode_shards(runner.method.encode, *split) for split in ((train, neighbours), (test, len(test)))
            )
            point = runner.add_point(knn(bank, queries))
            print(f"{method}: " + ", ".join(f"{key} {value:,.4g}" for key, value in point.items()), flush=True)
    finish_result(result, CPU, json_file)
    if picture is not None:
        draw_curves(result, picture)
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


class Runner:
    """A method, the seconds it has used, and the points of its curve.

    Each method has its own state of torch's generator, so that its draws do not depend on the other methods.
    """

    def __init__(self, method: Method, seconds: float, batch_size: int):
        self.method, self.seconds, self.batch_size = method, seconds, batch_size
        self.rng_state = torch.get_rng_state()
        self.spent, self.steps = 0.0, 0
        self.points: list[dict[str, float]] = []

    def train(self, share: float) -> None:
        """Take steps until `share` of the time is used."""
        torch.set_rng_state(self.rng_state)
        while self.spent < share * self.seconds:
            begin = time.process_time()
            self.method.step(self.spent / self.seconds)
            self.spent += time.process_time() - begin
            self.steps += 1
        self.rng_state = torch.get_rng_state()

    def add_point(self, result: Result) -> dict[str, float]:
        """Add a point to the curve and return it."""
        measured = {"accuracy": result.value, "standard_error": result.standard_error or 0.0}
        self.points.append({"minutes": self.spent / 60, "images": self.steps * self.batch_size, **measured})
        return self.points[-1]


def draw_curves(result: dict[str, Any], out: Path) -> None:
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


def encode_shards(encode: Callable[[Batch], Tensor], shards: ShardSource, samples: int) -> Labelled:
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
    batches, numbers = iter(trainer.batches(0, FOREVER)), itertools.count()

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
