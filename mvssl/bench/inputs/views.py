"""Views of images beside kornia and torchvision: the same operations with the same strengths, on the same bytes.

in   nothing; images are random bytes
out  samples per second of each way, and the ratio to kornia and to torchvision, for images of 32, 64 and 224 pixels

Every way begins with uint8 images that are decoded and ends with a normalised batch in float32. Ours draws its random
numbers too. torchvision works sample by sample: on tensors, and on PIL images, which are made before.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kornia.augmentation as K
import torch
import torchvision.transforms.v2 as T
from torch import Tensor, nn

from mvssl.bench.comparison import BLOCK, ROUNDS, Clock, Row, compare, finish_comparison, name_largest, one_thread
from mvssl.bench.timing import check_json_file
from mvssl.data import Batch
from mvssl.data.decoding.images import as_picture
from mvssl.recipe import ViewConfig
from mvssl.views import build_views
from mvssl.views.normalize import STATISTICS
from mvssl.views.presets import PRESETS


class Setting(NamedTuple):
    """Images of `source` = (height, width), and views of `pixels` a side for a batch of `batch` of them."""

    pixels: int
    source: tuple[int, int]
    batch: int


SETTINGS = (Setting(32, (32, 32), 256), Setting(64, (96, 96), 128), Setting(224, (256, 341), 32))
SIMCLR = PRESETS["simclr"]
SHARPNESS = {"without blur": {"blur_p": 0.0}, "with blur": {}}
WINDOW = 13  # of the blur: three of its largest standard deviations to either side

# options that leave out one operation; measured one after the other, the difference is what the operation takes
WITHOUT: dict[str, dict[str, Any]] = {
    "blur": {"blur_p": 0.0},
    "hue": {"jitter": (*SIMCLR["jitter"][:3], 0.0)},
    "brightness, contrast, saturation and gray": {"jitter": None, "gray_p": 0.0},
    "crop, resizing and flip": {"crop": None, "flip": 0.0},
}


def bench_views(
    *, settings: tuple[Setting, ...] = SETTINGS, rounds: int = ROUNDS, block: float = BLOCK,
    json_file: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the preset `simclr` with kornia and torchvision; print a table. Raise `OutputError`.

    `shares` in the result has the share of each operation in our time, by row. On a machine with a GPU the views and
    kornia's run there, and the time is wall time.
    """
    check_json_file(json_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = _clock_of(device)
    rows: list[Row] = []
    shares = {}
    with one_thread(), torch.no_grad():
        for setting, (blur, options) in itertools.product(settings, SHARPNESS.items()):
            ours = _views_on(setting, options, device)
            for rival, others in list_rivals(setting, device, blurred=not options).items():
                what, ways = f"{setting.pixels} pixels, {blur}, beside {rival}", {"mvssl": ours, **others}
                rows.append(
                    compare(what, ways, samples=setting.batch, rounds=rounds, block=block, clock=clock, device=device)
                )
            shares[f"{setting.pixels} pixels {blur}"] = measure_shares(setting, options, rounds, block, device)
    return finish_comparison(
        "views", rows, bottleneck=describe(shares), clock=clock, device=device, json_file=json_file, shares=shares,
        settings=[setting._asdict() for setting in settings],
    )  # fmt: skip


def make_images(setting: Setting) -> Tensor:
    """Return random bytes [batch, 3, height, width]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (setting.batch, 3, *setting.source), dtype=torch.uint8, generator=generator)


def sample_views(setting: Setting, images: Tensor, options: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the views of all images, drawn anew at each `next`."""
    view = ViewConfig.model_validate({"from": "image", "augment": "simclr", "size": setting.pixels, **options})
    views = build_views({"a": view}, {"image": (3, *setting.source)})
    for number in itertools.count():
        rows = torch.arange(setting.batch) + number * setting.batch
        yield views(Batch({"image": images}, rows, rows, {}, []), 0, images.device)["a"]


def list_rivals(setting: Setting, device: torch.device, *, blurred: bool) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """Return the other ways, by library and by name, as functions that make one batch of views."""
    images = make_images(setting)
    of_batch, of_sample = build_kornia(setting.pixels, blurred), build_torchvision(setting.pixels, blurred)
    batch, samples, pictures = images.to(device), list(images), [as_picture(image.numpy()) for image in images]
    rivals: dict[str, dict[str, Callable[[], Tensor]]] = {
        "kornia": {"kornia": lambda: of_batch(batch.float().div_(255))}
    }
    if device.type == "cpu":
        rivals["torchvision"] = {
            "torchvision, tensors": lambda: torch.stack([of_sample(sample) for sample in samples]),
            "torchvision, PIL": lambda: torch.stack([of_sample(picture) for picture in pictures]),
        }
    return rivals


def build_kornia(pixels: int, blurred: bool) -> nn.Module:
    """Return SimCLR's augmentation of float batches in [0, 1] with kornia."""
    mean, std = (torch.tensor(numbers) for numbers in STATISTICS["imagenet"])
    blur = [K.RandomGaussianBlur((WINDOW, WINDOW), SIMCLR["blur_sigma"], p=SIMCLR["blur_p"])] if blurred else []
    return K.AugmentationSequential(
        K.RandomResizedCrop((pixels, pixels), scale=SIMCLR["crop"]),
        K.RandomHorizontalFlip(SIMCLR["flip"]),
        K.ColorJitter(*SIMCLR["jitter"], p=SIMCLR["jitter_p"]),
        K.RandomGrayscale(p=SIMCLR["gray_p"]),
        *blur,
        K.Normalize(mean, std),
        data_keys=["input"],
    )


def build_torchvision(pixels: int, blurred: bool) -> nn.Module:
    """Return SimCLR's augmentation of one uint8 tensor or PIL image with torchvision."""
    blur = [T.RandomApply([T.GaussianBlur(WINDOW, SIMCLR["blur_sigma"])], SIMCLR["blur_p"])] if blurred else []
    return T.Compose(
        [
            T.RandomResizedCrop(pixels, SIMCLR["crop"], antialias=True),
            T.RandomHorizontalFlip(SIMCLR["flip"]),
            T.RandomApply([T.ColorJitter(*SIMCLR["jitter"])], SIMCLR["jitter_p"]),
            T.RandomGrayscale(SIMCLR["gray_p"]),
            *blur,
            T.ToImage(),
            T.ToDtype(torch.float32, scale=True),
            T.Normalize(*STATISTICS["imagenet"]),
        ]
    )


def measure_shares(
    setting: Setting, options: dict[str, Any], rounds: int, block: float, device: torch.device
) -> dict[str, float]:
    """Return the share of each operation in the time of a view: what is saved where it is left out too."""
    left_out, ways = dict(options), {"everything": _views_on(setting, options, device)}
    for operation, without in WITHOUT.items():
        if operation == "blur" and options:
            continue
        left_out = {**left_out, **without}
        resized = setting if left_out.get("crop", True) else setting._replace(source=(setting.pixels, setting.pixels))
        ways[operation] = _views_on(resized, left_out, device)
    times = compare("", ways, rounds=rounds, block=block, clock=_clock_of(device), device=device).seconds
    steps = list(times.items())
    saved = {name: max(0.0, before - after) for (_, before), (name, after) in itertools.pairwise(steps)}
    saved["drawing and normalisation"] = steps[-1][1]
    return {name: time / sum(saved.values()) for name, time in saved.items()}


def _views_on(setting: Setting, options: dict[str, Any], device: torch.device) -> Callable[[], Tensor]:
    return sample_views(setting, make_images(setting).to(device), options).__next__


def _clock_of(device: torch.device) -> Clock:
    return "wall" if device.type == "cuda" else "cpu"


def describe(shares: dict[str, dict[str, float]]) -> str:
    """Return which operation takes most of our time in each row."""
    return "; ".join(f"at {row}, {name_largest(parts)}" for row, parts in shares.items())
