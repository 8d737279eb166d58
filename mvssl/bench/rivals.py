"""kNN accuracy against CPU minutes: a recipe beside lightly's SimCLR, BYOL and VICReg on the same encoder and images.

in   a recipe with one image view, `count: 2`, and labelled shards; `pip install lightly` for the rivals
out  for each method the kNN accuracy after each eighth of the minutes, and the images seen until then

Time is what this process computed on one thread, loading, decoding and views included, measuring left out. Methods take
turns of some seconds, so that a busy neighbour slows them all alike. Every method has the same minutes, batch size,
precision, optimizer, and a learning rate that falls to 0 within them.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mvssl.bench.lightly import Method, rival
from mvssl.bench.timing import FOREVER, planned, try_file, write
from mvssl.data import Batch, ShardSource, sequential_loader
from mvssl.errors import RecipeError
from mvssl.evaluation.features.inputs import Subset
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.features.splits import open_labelled
from mvssl.evaluation.probes.knn import knn
from mvssl.evaluation.results.metrics import Result
from mvssl.files import MEASURED, PICTURE, check_output, write_picture
from mvssl.recipe import Recipe
from mvssl.training.step import Trainer, make_accelerator
from mvssl.views.normalize import spread_indices

METHODS = ("ours", "simclr", "byol", "vicreg")
CHECKS = 8  # points of a curve
TURN = 10.0  # seconds of CPU time that a method trains before the next has its turn
CPU = torch.device("cpu")


def bench_rivals(
    recipe: Recipe,
    *,
    minutes: float = 20.0,
    methods: tuple[str, ...] = METHODS,
    neighbours: int = 20_000,
    json_file: str | Path | None = None,
) -> dict[str, Any]:
    """Train each method for `minutes` and measure kNN with so many training images as `neighbours`.

    Raises `RecipeError` where lightly is not installed or the recipe asks for what the rivals cannot have alike.
    """
    name, view = next(iter(recipe.views.items()))
    _refuse(recipe)
    picture = None if json_file is None else Path(json_file).with_suffix(".png")
    if picture is not None and picture == Path(json_file or ""):
        raise RecipeError(f"--json {json_file}: the picture is drawn to {picture}; choose a name that ends in .json")
    try_file(json_file)
    if picture is not None:
        check_output(picture, PICTURE._replace(hint=MEASURED.hint))
    torch.set_num_threads(1)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": 0})})  # all time is ours
    columns = {view.source: recipe.data.columns[view.source]}
    train, test = (open_labelled(recipe.data, patterns, columns) for patterns in (recipe.data.train, recipe.data.val))
    turns = max(1, round(minutes * 60 / CHECKS / TURN))
    runners = {}
    for method in methods:
        torch.manual_seed(recipe.train.seed)
        made = ours(recipe) if method == "ours" else rival(method, recipe, train, view.source)
        runners[method] = Runner(made, minutes * 60, recipe.data.batch_size)
    found: dict[str, Any] = {
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
        write(found, CPU, json_file)
        for turn in range(1, turns + 1):
            for runner in runners.values():
                runner.train((check - 1 + turn / turns) / CHECKS)
        for method, runner in runners.items():
            known, asked = (
                features(runner.method.encode, *split) for split in ((train, neighbours), (test, len(test)))
            )
            point = runner.note(knn(known, asked))
            print(f"{method}: " + ", ".join(f"{key} {value:,.4g}" for key, value in point.items()), flush=True)
    write(found, CPU, json_file)
    if picture is not None:
        draw(found, picture)
    return found


def _refuse(recipe: Recipe) -> None:
    view, encoder = next(iter(recipe.views.values())), next(iter(recipe.encoder.values()))
    for fault, wanted in (
        (len(recipe.views) > 1 or view.count < 2, f"one image view with count: 2 or more, not {[*recipe.views]}"),
        (recipe.data.label is None or not recipe.data.val, "labels to measure kNN: data.label and data.val"),
        (encoder.pretrained or encoder.init_from, "an encoder that starts from nothing, as the rivals' does"),
        (view.name != "image", f"a view of images, not {view.name}"),
        (recipe.optim.clip is not None, "no optim.clip, which the rivals do not have"),
    ):
        if fault:
            raise RecipeError(f"bench rivals needs {wanted}")


class Runner:
    """A method, the seconds that it has computed, and the points of its curve.

    torch's generator is each method's own, so that what one draws does not depend on whose turn was before.
    """

    def __init__(self, method: Method, seconds: float, batch_size: int):
        self.method, self.seconds, self.batch_size = method, seconds, batch_size
        self.drawn = torch.get_rng_state()
        self.spent, self.steps = 0.0, 0
        self.points: list[dict[str, float]] = []

    def train(self, share: float) -> None:
        """Take steps until `share` of the time is spent."""
        torch.set_rng_state(self.drawn)
        while self.spent < share * self.seconds:
            begin = time.process_time()
            self.method.step(self.spent / self.seconds)
            self.spent += time.process_time() - begin
            self.steps += 1
        self.drawn = torch.get_rng_state()

    def note(self, found: Result) -> dict[str, float]:
        """Add a point to the curve."""
        measured = {"accuracy": found.value, "standard_error": found.standard_error or 0.0}
        self.points.append({"minutes": self.spent / 60, "images": self.steps * self.batch_size, **measured})
        return self.points[-1]


def draw(found: dict[str, Any], out: Path) -> None:
    """The curves as a picture."""
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    for (name, points), marker in zip(found["curves"].items(), "osDv^P", strict=False):
        minutes, accuracy = ([point[key] for point in points] for key in ("minutes", "accuracy"))
        axes.plot(minutes, [100 * value for value in accuracy], marker=marker, markersize=4, label=name)
        axes.annotate(f" {100 * accuracy[-1]:.1f}", (minutes[-1], 100 * accuracy[-1]), va="center")
    axes.set(xlabel="CPU minutes", ylabel="kNN accuracy, %", xlim=(0, 1.08 * found["minutes"]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_picture(figure, out, MEASURED.hint)


def features(encode: Callable[[Batch], Tensor], shards: ShardSource, samples: int) -> Labelled:
    """What `encode` says of so many samples, evenly over the shards."""
    found, labels = [], []
    for batch in sequential_loader(Subset(shards, spread_indices(len(shards), samples).tolist()), batch_size=256):
        with torch.inference_mode():
            found.append(encode(batch).float())
        labels.append(batch.columns["label"].long())
    return Labelled(torch.cat(found), torch.cat(labels))


def ours(recipe: Recipe) -> Method:
    """The recipe, by the steps that `mvssl train` takes."""
    trainer = Trainer.prepare(recipe, make_accelerator(recipe, cpu=True))
    batches, numbers = iter(trainer.batches(0, FOREVER)), itertools.count()

    def step(share: float) -> None:
        number = next(numbers)
        trainer.steps = planned(number, share, recipe.optim.warmup)
        trainer.wrapped.train()
        trainer.step(next(batches), number)

    def encode(batch: Batch) -> Tensor:
        trainer.wrapped.eval()
        (found,) = trainer.model.encode(trainer.views.clean(batch, CPU)).values()
        return found.vector

    return Method(step, encode)
