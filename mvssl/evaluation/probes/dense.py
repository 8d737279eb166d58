"""Dense probe: a linear classifier (a 1x1 convolution) predicts the class of each pixel from local maps.

in   maps of train and of test, one or several [n, c, h, w], and the class of each pixel [n, H, W]
out  mean intersection over union and pixel accuracy over every labelled pixel of test

The scores of each map are upsampled bilinearly to the size of the labels, then added. Both steps are linear, so the
probe is a linear classifier of interpolated features. The fit of the linear probe trains it on pixels sampled from each
image. Learning rate and weight decay are those with the best mIoU on held-out images of train.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.evaluation.features.inputs import ProbeInputs
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.probes.fitting import hold_out, rows_per_step
from mvssl.evaluation.probes.linear import DECAYS, PAIRS, RATES, Linear, best_pair, fit_linear
from mvssl.evaluation.results.metrics import BOOTSTRAP, Metric, NotPossible, Result, resampled
from mvssl.recipe import Evaluate

MIOU, PIXEL_ACCURACY = Metric("miou"), Metric("pixel_accuracy")
SCHEDULE: dict[str, Any] = {"epochs": 5, "batch_size": 512, "least_steps": 500}
PIXELS = 64  # pixels sampled from each image of train
NUMBERS = 2**26  # largest number of floats held for training: 256 MB; many images give fewer pixels each
IMAGES = 16  # images whose scores are in memory at once


class PixelSample(NamedTuple):
    """p pixels of each of m images: features [m, p, c] and classes int64 [m, p]."""

    features: Tensor
    classes: Tensor

    def labelled(self, images: Tensor | slice, device: torch.device) -> Labelled:
        """Return the pixels of these images as one table."""
        return Labelled(self.features[images].flatten(0, 1).to(device), self.classes[images].flatten().to(device))


class Counts(NamedTuple):
    """Numbers of pixels by image and class, float64 [n, c]."""

    correct: Tensor  # pixels of the class that are predicted as it
    predicted: Tensor  # pixels that are predicted as the class
    actual: Tensor  # pixels of the class

    def total(self, weights: Tensor | None = None) -> "Counts":
        """Return the sums over images, [1, c]; `weights` [b, n] count each image several times and give [b, c]."""
        weights = torch.ones(1, len(self.actual)) if weights is None else weights
        return Counts(*(weights.double() @ counts for counts in self))


def dense(
    train: tuple[Sequence[Tensor], Tensor], test: tuple[Sequence[Tensor], Tensor], *, device: torch.device,
    ignore: int | None = None, share: float = 0.2, seed: int = 0,
) -> list[Result]:  # fmt: skip
    """Return mIoU and pixel accuracy. Pixels of class `ignore` are neither trained on nor scored.

    The mean is over the classes that test contains. A pixel that is predicted as another class is an error of its
    own class. Raise `NotPossible` if no pixel is labelled.
    """
    kinds = max(highest_class(labels, ignore) for _, labels in (train, test)) + 1
    drawn = sample_pixels(*train, ignore=ignore, seed=seed)
    chosen = choose_settings(drawn, kinds, device, share=share, seed=seed)
    pair = chosen["learning_rate"], chosen["weight_decay"]
    model = fit_linear(drawn.labelled(slice(None), device), [pair], width=kinds, seed=seed, **SCHEDULE)
    counts = count_pixels(model, *test, ignore=ignore, device=device)
    if not counts.actual.any():
        raise NotPossible("no image of test has a labelled pixel")
    protocol = {
        "classifier": "linear (1x1 convolution) on each map, scores upsampled bilinearly and added, softmax",
        "label_size": list(test[1].shape[1:]),
        "ignored_class": ignore,
        "classes": int(counts.actual.any(0).sum()),
        "averaged_over": "classes that test shows",
        "images": len(drawn.classes),
        "pixels_per_image": drawn.classes.shape[1],
        "optimizer": "Adam, cosine decay to 0",
        **SCHEDULE,
        "batch_size": rows_per_step(drawn.classes.numel(), SCHEDULE["batch_size"]),
        "learning_rates": list(RATES),
        "weight_decays": list(DECAYS),
        "scaling": "standardised by the pixels drawn of train",
        "chosen": f"by mIoU on {share:.0%} of the images of train, then refitted on all of them",
    }
    return _results(counts, drawn.classes, protocol, chosen, seed)


def highest_class(labels: Tensor, ignore: int | None) -> int:
    """Return the largest class of any pixel that is not ignored. Raise `NotPossible` if all are ignored."""
    counted = labels if ignore is None else labels[labels != ignore]
    if not counted.numel():
        raise NotPossible("no image has a labelled pixel")
    return int(counted.max())


def sample_pixels(maps: Sequence[Tensor], labels: Tensor, *, ignore: int | None, seed: int) -> PixelSample:
    """Sample `PIXELS` labelled pixels with replacement from every image that has any."""
    flat = labels.flatten(1)
    usable = torch.ones_like(flat, dtype=torch.bool) if ignore is None else flat != ignore
    images = usable.any(1).nonzero()[:, 0]
    if not len(images):
        raise NotPossible("no image of train has a labelled pixel")
    pixels = max(1, min(PIXELS, NUMBERS // (len(images) * sum(m.shape[1] for m in maps))))
    generator, size = torch.Generator().manual_seed(seed), (labels.shape[1], labels.shape[2])
    features, classes = [], []
    for rows in images.split(256):
        places = torch.multinomial(usable[rows].float(), pixels, replacement=True, generator=generator)
        features.append(interpolate_at([m[rows] for m in maps], places, size))
        classes.append(flat[rows].gather(1, places).long())
    return PixelSample(torch.cat(features), torch.cat(classes))


def interpolate_at(maps: Sequence[Tensor], places: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the values [n, p, c] of maps [n, c, h, w] at some pixels, as after upsampling to `size`.

    `places` [n, p] are the pixels as row * W + column.
    """
    height, width = size
    centre = torch.stack([places % width / width, places // width / height], -1) * 2
    grid = (centre + torch.tensor([1 / width, 1 / height]) - 1).float()[:, None]  # [n, 1, p, 2], x first
    values = [F.grid_sample(m.float(), grid, padding_mode="border", align_corners=False)[:, :, 0] for m in maps]
    return torch.cat(values, 1).transpose(1, 2)


def choose_settings(drawn: PixelSample, kinds: int, device: torch.device, *, share: float, seed: int) -> dict:
    """Return the pair of learning rate and weight decay with the best mIoU on the pixels of held-out images."""
    kept, held = hold_out(len(drawn.classes), share, seed)
    model = fit_linear(drawn.labelled(kept, device), PAIRS, width=kinds, seed=seed, **SCHEDULE)
    features, classes = drawn.labelled(held, device)
    predicted = model(features).argmax(2)  # [m, k]
    scores = [miou(count_by_class(predicted[None, :, k], classes[None], kinds)).item() for k in range(len(PAIRS))]
    return {**best_pair(scores), "held_out_images": len(held)}


def count_pixels(
    model: Linear, maps: Sequence[Tensor], labels: Tensor, *, ignore: int | None, device: torch.device
) -> Counts:
    """Predict every pixel of [n, H, W], and return the counts of each image."""
    weight = model.weight[0] * model.standard.scale
    bias = model.bias[0] - weight @ model.standard.mean
    kernels = weight[:, :, None, None].split([m.shape[1] for m in maps], dim=1)
    size, parts = list(labels.shape[1:]), []
    for rows in torch.arange(len(labels)).split(IMAGES):
        scores = bias[:, None, None]
        for m, kernel in zip(maps, kernels, strict=True):
            local = F.conv2d(m[rows].float().to(device), kernel)
            scores = scores + F.interpolate(local, size, mode="bilinear", align_corners=False)
        parts.append(
            count_by_class(scores.argmax(1).flatten(1), labels[rows].flatten(1).to(device).long(), len(bias), ignore)
        )
    return Counts(*(torch.cat(part) for part in zip(*parts, strict=True)))


def count_by_class(predicted: Tensor, truth: Tensor, kinds: int, ignore: int | None = None) -> Counts:
    """Return the counts of each row of [n, p], predicted and true classes. Pixels of class `ignore` do not count."""
    counted = torch.ones_like(truth, dtype=torch.float64) if ignore is None else (truth != ignore).double()
    truth = truth.masked_fill(counted == 0, 0)  # any class: its weight is 0
    empty = torch.zeros(len(truth), kinds, dtype=torch.float64, device=truth.device)
    correct = empty.scatter_add(1, truth, counted * (predicted == truth))
    return Counts(
        *(x.cpu() for x in (correct, empty.scatter_add(1, predicted, counted), empty.scatter_add(1, truth, counted)))
    )


def miou(counts: Counts, weights: Tensor | None = None) -> Tensor:
    """Return the mean of correct / union over the classes that occur, [1], or [b] with `weights` as in `total`."""
    correct, predicted, actual = counts.total(weights)
    union = predicted + actual - correct
    return torch.where(actual > 0, correct / union.clamp(min=1e-12), torch.nan).nanmean(1)


def pixel_accuracy(counts: Counts, weights: Tensor | None = None) -> Tensor:
    """Return the share of labelled pixels that are predicted correctly, [1], or [b] with `weights` as in `total`."""
    correct, _, actual = counts.total(weights)
    return correct.sum(1) / actual.sum(1)


def _results(counts: Counts, classes: Tensor, protocol: dict, chosen: dict, seed: int) -> list[Result]:
    """Return both results with a bootstrap over images. Chance predicts the most frequent class of train everywhere."""
    common = int(classes.flatten().bincount().argmax())
    weights = resampled(len(counts.actual), torch.Generator().manual_seed(seed))
    everywhere = torch.zeros_like(counts.actual)
    everywhere[:, common] = 1
    blind = Counts(counts.actual * everywhere, counts.actual.sum(1, keepdim=True) * everywhere, counts.actual)
    results = []
    for metric, measure in ((MIOU, miou), (PIXEL_ACCURACY, pixel_accuracy)):
        value, parts, chance = measure(counts).item(), measure(counts, weights), measure(blind).item()
        error = parts.std().item()
        results.append(Result(value, metric, protocol, error, parts, BOOTSTRAP, chosen=chosen, chance=chance))
    return results


class Dense(FunctionProbe):
    """`dense`."""

    function = dense
    runs_on = "view"
    needs_labels = False
    needs_local_maps = True

    @classmethod
    def settings(cls, evaluate: Evaluate) -> list[dict[str, Any]]:
        return [{"ignore": evaluate.ignore}]

    def run(self, inputs: ProbeInputs) -> list[Result]:
        return dense(*inputs.local_maps(), device=inputs.device, seed=inputs.seed, **self.keywords)
