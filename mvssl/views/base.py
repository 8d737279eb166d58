"""The contract of a view: which members a view must define, and the defaults of the others.

in   a class from the package or from a user's module
out  `View`, the base class. The rest of mvssl uses views only through it
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mvssl.data.drawn import map_leaves
from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws

Interpolation = Literal["bilinear", "nearest"]
Kind = Literal["image", "signal", "spectrogram", "vector"]


class Spectrogram(NamedTuple):
    """The axes of a spectrogram view [c, mels, frames]: its duration and its range of frequencies (mel scale)."""

    seconds: float
    low: float  # Hz
    high: float  # Hz


class Geometry:
    """Random placements that several views can share. `geometry: OTHER` in a recipe repeats those of view OTHER.

    A view can follow another one if both have a geometry of the same class. The constructor's keyword-only arguments
    are options of the view. A view that follows another one must not set them.
    """

    crop: tuple[float, float] | None = None  # smallest and largest share that a crop keeps; None: the view shows all

    def draw(self, draws: Draws) -> Any:
        """Return the placements of the batch's samples. The view gets them as its argument `placement`."""
        raise NotImplementedError


class View:
    """One view of a column. Derive from it, set `shape`, and define `__call__`; every other member has a default.

    The constructor takes the shape of one sample of the column, for example (3, 32, 32). Its keyword-only arguments
    are the view's options. Their names, types and defaults are the schema for recipes. The constructor raises
    `RecipeError` for values that it does not accept.
    """

    shape: tuple[int, ...] = ()
    """Shape of one sample of the view: (c, h, w), (c, t) or (d,). Required."""

    mean: Tensor = torch.zeros(1)
    """What the view subtracts from each channel; float32 [c], or [1] for all channels. Bytes are scaled to [0, 1]."""

    std: Tensor = torch.ones(1)
    """The standard deviation by which the view divides each channel, float32 [c], or [1] for all channels."""

    bands: tuple[str, ...] = ()
    """Names of the view's channels, in order; empty if they have none."""

    column_bands: tuple[str, ...] = ()
    """Names of the column's channels, in order; empty if they have none."""

    interpolation: Interpolation = "bilinear"
    """How images are resized; exports write it to config.json."""

    geometry: Geometry | None = None
    """Draws crops, flips or masks that other views can repeat. None if the view has no geometry."""

    spectrogram: Spectrogram | None = None
    """The axes, if the view is a spectrogram with low frequencies first; else None."""

    shows: str = ""
    """A phrase for the caption of a picture, such as "lightness, in gray"; empty if none is needed."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of options, for `augment: NAME` in a recipe."""

    def __call__(self, column: Tensor, draws: Draws | None, /) -> Tensor:
        """Return the view, float32 [n, *shape], of a column [n, ...]. It is on the column's device.

        `draws` gives random numbers. Row i depends only on sample i. If `draws` is None, the view is clean: it has no
        augmentation, as in evaluation. A view with a `geometry` takes a third argument `placement=None`. It is a
        placement that another view's geometry drew. If it is None, the view draws its own.
        """
        raise NotImplementedError

    def measured(self, column: Tensor) -> Tensor:
        """Return the clean view with NaN for values that were not measured. Statistics ignore NaN."""
        return self(column, None)

    def with_channels(self, column: Tensor) -> Tensor:
        """Return the column with a dimension for channels, for pictures: [n, h, w] becomes [n, 1, h, w]."""
        return column

    def to_rgb(self, x: Tensor) -> Tensor | None:
        """Return views [n, *shape] as RGB pictures [n, 3, h, w] in [0, 1]. None: draw a default picture."""
        return None

    @property
    def picture_kind(self) -> Kind:
        """Which kind of picture shows the view."""
        if self.spectrogram is not None:
            return "spectrogram"
        return "image" if len(self.shape) == 3 else "signal" if len(self.shape) == 2 else "vector"

    @classmethod
    def needs_statistics(cls, options: dict[str, Any], floats: bool) -> bool:
        """Whether `mean` and `std` are to be measured on the training data; `floats`: the column holds floats."""
        return options.get("normalize") == "data"


class DrawnView(View, ABC):
    """A view in two parts: `draw` makes the random parameters of a batch, and `apply` makes the view with them.

    Loaders call `draw` in their workers, for all views of a batch, and send the parameters to the device in one copy.
    So the training process spends no time on them. Derive from it if a view draws many numbers; set `shape`, and
    define both methods.
    """

    @abstractmethod
    def draw(self, draws: Draws, placement: Any = None) -> Any:
        """Return the parameters of the batch's samples: a NamedTuple of CPU tensors and of what the host must know.

        Members may be NamedTuples too. `placement` is that of another view, if the recipe has `geometry: OTHER`; else
        the view draws its own.
        """

    @abstractmethod
    def apply(self, column: Tensor, drawn: Any, draws: Draws | None) -> Tensor:
        """Return the view, float32 [n, *shape], of a column [n, ...]; `drawn` is None for the clean view.

        The tensors of `drawn` are on the column's device, everything else is as `draw` returned it. `draws` is for
        noise on every value, which is made on the device.
        """

    def __call__(self, column: Tensor, draws: Draws | None, placement: Any = None) -> Tensor:
        """Return the view of a column, drawn and applied at once; without draws the clean view.

        `placement` is that of another view, for sensors that see the same scene. The default is an own draw.
        """
        if draws is None:
            return self.apply(column, None, None)
        drawn = map_leaves(self.draw(draws, placement), Tensor, lambda x: send(x, column.device))
        return self.apply(column, drawn, draws)


def view_class(made: type, where: str) -> type[View]:
    """Return a recipe's class as a subclass of `View`. Other classes get the default members of `View`.

    Raises `RecipeError` for a class without `__call__`. Its message begins with `where`.
    """
    full = made if issubclass(made, View) else type(made.__name__, (made, View), {"__module__": made.__module__})
    if full.__call__ is View.__call__:
        raise RecipeError(f"{where}: {made.__name__} is no view; it needs a method __call__(self, column, draws)")
    if inspect.isabstract(full):
        raise RecipeError(f"{where}: {made.__name__} is a DrawnView; it needs the methods draw and apply")
    return full
