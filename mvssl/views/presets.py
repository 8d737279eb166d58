"""The augmentations of the papers, as options of `ImageView`; a view's own options override them.

in   the recipe's `augment: NAME`
out  a dict of options

DIM: arXiv:1808.06670. AMDIM: arXiv:1906.00910. CMC: arXiv:1906.05849. MIB: arXiv:2002.07017. SimCLR: arXiv:2002.05709.
"""

from typing import Any

_AMDIM_CROP = {
    "crop": (0.3, 1.0),
    "ratio": (0.7, 1.4),
    "flip": 0.5,
    "shared_flip": True,
    "jitter_p": 0.8,
    "gray_p": 0.25,
    "normalize": "imagenet",
}

PRESETS: dict[str, dict[str, Any]] = {
    # CIFAR-10: no augmentation
    "dim": {"normalize": "half"},
    # CIFAR, 32 pixels: the views of a sample share one flip, drawn before the two augmentations
    "amdim": {
        "flip": 0.5,
        "shared_flip": True,
        "translate": 4,
        "translate_p": 0.8,
        "jitter": (0.4, 0.4, 0.4, 0.2),
        "jitter_p": 0.8,
        "gray_p": 0.25,
        "normalize": "cifar10",
    },
    # STL-10, 64 pixels; the paper's crop is bicubic, ours bilinear
    "amdim_stl10": {**_AMDIM_CROP, "size": 64, "jitter": (0.4, 0.4, 0.4, 0.2)},
    # ImageNet and Places, 128 pixels
    "amdim_imagenet": {**_AMDIM_CROP, "size": 128, "jitter": (0.4, 0.4, 0.4, 0.1)},
    # one crop and flip for both colour views: `channels: L`, and `channels: ab, geometry: <the L view>`
    "cmc": {"crop": (0.2, 1.0), "flip": 0.5, "color": "lab", "normalize": "lab"},
    # MNIST; torchvision's RandomAffine of the time took the nearest pixel
    "mib": {
        "affine": {"degrees": 15.0, "translate": 0.1, "scale": (0.9, 1.1), "shear": 15.0},
        "interpolation": "nearest",
        "keep": 0.8,
        "normalize": "none",
    },
    "simclr": {
        "crop": (0.08, 1.0),
        "flip": 0.5,
        "jitter": (0.8, 0.8, 0.8, 0.2),
        "jitter_p": 0.8,
        "gray_p": 0.2,
        "blur_p": 0.5,
        "blur_sigma": (0.1, 2.0),
        "normalize": "imagenet",
    },
    # for sensors: nothing but geometry, any number of channels
    "crop_flip": {"crop": (0.2, 1.0), "flip": 0.5},
}
