"""Draw docs/images/overview.png: two views of one sample of each kind of data, and the accuracy with few labels.

MVSSL_DATA=FOLDER python docs/overview.py, where FOLDER has the shards of the recipes below. Figures are of results.md.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from mvssl import load_recipe
from mvssl.data import open_shards, sequential_loader
from mvssl.views import build_views, resolve_statistics

ROOT = Path(__file__).parents[1]
# recipe, title, two views, their names, a sample, accuracy in % with one label per class: raw, untrained, trained
KINDS = [
    ("quickstart", "digits", "digit_0 digit_1", "two augmentations", 9, (58.7, 14.9, 77.1)),
    ("cmc_imu_dsads", "19 activities", "torso rarm", "inertial units", 40, (40.9, 63.8, 72.2)),
    ("mib_audiovisual_digits", "spoken, written digits", "audio image", "sound, image", 5, (21.7, 22.5, 99.3)),
    ("cmc_features_mfeat", "described digits", "fou kar", "feature vectors", 10, (69.2, 74.3, 80.3)),
    ("cmc_lab_cifar10", "CIFAR-10", "L ab", "luminance, colour", 19, (15.9, 14.8, 19.1)),
    ("cmc_rgbd_nyuv2", "rooms (mAP)", "rgb depth", "colour, depth", 3, (27.0, 27.2, 29.7)),
]
BARS = {"raw input": "#b8bec7", "untrained": "#7f8fa6", "trained": "#1f6feb"}


def draw_view(axes, name: str, view, x: torch.Tensor) -> None:
    """Draw one view of one sample: an image, a spectrogram, a signal or a vector."""
    if x.ndim == 3:
        color = view.to_rgb(x[None])
        if name in ("L", "depth", "audio") or color is None:
            axes.imshow(x[0], cmap="gray" if name == "L" else "magma", origin="lower" if name == "audio" else "upper")
        else:
            axes.imshow(color[0].permute(1, 2, 0).clamp(0, 1))
        if name == "audio":
            axes.set_aspect("auto")
    elif x.ndim == 2:
        axes.plot(x[:3].T, linewidth=0.8)
    else:
        axes.bar(np.arange(len(x)), x, width=1.0, color="#5b6ee1")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(name.replace("rarm", "right arm").replace("_", " "), fontsize=8, labelpad=2)


def main() -> None:
    """Draw all kinds side by side."""
    figure, rows = plt.subplots(3, len(KINDS), figsize=(11, 5.2), height_ratios=[1, 1, 0.9], layout="constrained")
    for column, (stem, title, names, kinds, sample, accuracies) in enumerate(KINDS):
        recipe = load_recipe(ROOT / "recipes" / f"{stem}.yaml")
        source = open_shards(recipe.data.train, recipe.data.folder, recipe.data.columns, progress=False)
        views = build_views(resolve_statistics(recipe.views, source.shapes, source), source.shapes)
        drawn = views(next(iter(sequential_loader(source, batch_size=64))), seed=0)
        for row, name in enumerate(names.split()):
            draw_view(rows[row, column], name, views.view(name), drawn[name][sample])
        rows[0, column].set_title(f"{title}\n{kinds}", fontsize=9)
        bars = rows[2, column].bar(list(BARS), accuracies, color=list(BARS.values()), width=0.75)
        rows[2, column].bar_label(bars, fmt="%.1f", fontsize=8)
        rows[2, column].set(ylim=(0, 112), xticks=[], yticks=[])
        rows[2, column].spines[["top", "right", "left"]].set_visible(False)
    rows[2, 0].set_ylabel("%, one label per class", fontsize=8)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in BARS.values()]
    figure.legend(handles, list(BARS), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(ROOT / "docs/images/overview.png", dpi=110)


if __name__ == "__main__":
    main()
