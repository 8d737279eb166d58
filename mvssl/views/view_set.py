"""From a batch's columns to the views of a recipe.

in   Batch(columns, position, ...), a seed
out  dict view name -> float32 [n, *shape], in recipe order; a view with `count: 2` is drawn twice, as NAME_0 and NAME_1

A draw depends on (seed, position, view's name, operation), and not on the batch, the process or the device.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mvssl.data import SampleError
from mvssl.distributed.devices import arithmetic
from mvssl.errors import DataError, RecipeError
from mvssl.random import Draws
from mvssl.recipe import View as ViewTable
from mvssl.recipe.messages import nearest
from mvssl.recipe.options import construct, find_class, options_of
from mvssl.views.base import Geometry, View, view_class
from mvssl.views.image import ImageView
from mvssl.views.logmel import LogMelView
from mvssl.views.naming import drawn
from mvssl.views.normalize import Moments, spread
from mvssl.views.signal import SignalView
from mvssl.views.vector import VectorView

VIEWS: dict[str, type[View]] = {"image": ImageView, "signal": SignalView, "logmel": LogMelView, "vector": VectorView}
Shapes = Mapping[str, tuple[int, ...]]


class ViewSet:
    """All views of a recipe; `build_views` makes one.

    names    the views that training sees, counted ones expanded
    shapes   shape per sample of each of them
    bases    the recipe's own names, which `clean` uses
    """

    def __init__(self, tables: Mapping[str, ViewTable], views: Mapping[str, View], owners: Mapping[str, str]):
        self.bases, self._tables, self._views, self._owners = list(views), tables, views, owners
        self._base = {name: base for base, table in tables.items() for name in drawn(base, table.count)}
        self.names = list(self._base)
        self.shapes = {name: tuple(views[base].shape) for name, base in self._base.items()}

    def source_of(self, name: str) -> str:
        """The column that a view, expanded or not, is drawn from."""
        return self._tables[self._base.get(name, name)].source

    def leader_of(self, name: str) -> str:
        """The expanded view whose crop, flip and masks this one repeats; itself where it has its own."""
        return self._owners.get(name, name)

    def view(self, name: str) -> View:
        """The view object behind an expanded name or the recipe's own."""
        return self._views[self._base.get(name, name)]

    def __call__(self, batch: Any, seed: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Training draws of every view, on `device`."""
        draws = Draws(seed, batch.position, scope="view")
        with _exactly(device):
            columns = self._columns(batch, device)
            return {name: self._draw(name, columns[self.source_of(name)], draws) for name in self.names}

    def clean(self, batch: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Every view once, under the recipe's name and without augmentation."""
        with _exactly(device):
            columns = self._columns(batch, device)
            return {base: self._views[base](columns[self.source_of(base)], None) for base in self.bases}

    def _columns(self, batch: Any, device: torch.device | str) -> dict[str, Tensor]:
        used = dict.fromkeys(table.source for table in self._tables.values())
        return {column: batch.columns[column].to(device, non_blocking=True) for column in used}

    def _draw(self, name: str, column: Tensor, draws: Draws) -> Tensor:
        if name not in self._owners:
            return self.view(name)(column, draws.within(name))
        leader, follow = self.leader_of(name), cast(Callable[..., Tensor], self.view(name))
        return follow(column, draws.within(name), self._geometry(leader).draw(draws.within(leader)))

    def _geometry(self, leader: str) -> Geometry:
        return cast(Geometry, self.view(leader).geometry)


@contextlib.contextmanager
def _exactly(device: torch.device | str) -> Iterator[None]:
    """Inside, whatever precision a run has: views are made in float32 by IEEE, and without gradient."""
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False), arithmetic("fp32"):
        yield


def build_views(recipe_views: Mapping[str, ViewTable], shapes: Shapes) -> ViewSet:
    """The views of a recipe for columns of these shapes per sample. Raises `RecipeError`.

    Views with `normalize: data` are measured first, by `resolve_statistics`.
    """
    views = {name: _build(name, view, shapes) for name, view in recipe_views.items()}
    expanded = [name for base, view in recipe_views.items() for name in drawn(base, view.count)]
    for name in expanded:
        if expanded.count(name) > 1:
            raise RecipeError(f"views: two views are called {name!r}; one with count: 2 is called NAME_0 and NAME_1")
    return ViewSet(recipe_views, views, _owners(recipe_views, views))


def build_alike(
    recipe_views: Mapping[str, ViewTable], shapes: Shapes, known: Mapping[str, tuple[int, ...]], whose: str
) -> ViewSet:
    """The views for columns of these shapes. Raises `DataError` where they are not the `known` ones that `whose` is."""
    try:
        seen = build_views(recipe_views, shapes)
    except RecipeError as error:
        raise DataError(f"these shards do not suit the views of {whose}: {error}") from None
    for name, shape in seen.shapes.items():
        if name in known and shape != known[name]:
            sized = len(shape) == 3 and shape[0] == known[name][0]
            advice = f"; data.columns.{seen.source_of(name)}.size=N may mend that" if sized else ""
            here, there = list(shape), list(known[name])
            raise DataError(f"view {name} is {here} in these shards, but {there} where {whose} learned it{advice}")
    return seen


def resolve_statistics(recipe_views: Mapping[str, ViewTable], shapes: Shapes, source: Any) -> dict[str, ViewTable]:
    """The same views with `normalize: data` replaced by numbers, as the resolved recipe should hold them.

    Measured on at most 2048 samples spread evenly over `source` (`len` and `source[i]`, a dict of arrays), each through
    the clean view, for each channel or feature. Samples that cannot be decoded, columns that a sample lacks, values
    that are not finite and a view's `nodata` are left out. Images of floats, which have the range that their instrument
    gave them, are measured by default.
    """
    resolved, moments = dict(recipe_views), {}
    for name, view in recipe_views.items():
        if measures(name, view, source):
            resolved[name] = view.model_copy(update={"normalize": "none"})
            moments[name] = _build(name, resolved[name], shapes), Moments()
    for sample in _readable(source) if moments else ():
        for name, (view, measured) in moments.items():
            column = sample.get(recipe_views[name].source)
            if column is not None:
                measured.add(view.measured(torch.as_tensor(np.array(column))[None]))
    for name, (_, measured) in moments.items():
        resolved[name] = recipe_views[name].model_copy(update={"normalize": measured.numbers()})
    return resolved


def measures(name: str, view: ViewTable, source: Any) -> bool:
    """Whether a view's normalisation is measured on the data of `source`."""
    made, options = _options(name, view)
    form = getattr(source, "specs", {}).get(view.source)
    return made.needs_statistics(options, form is not None and form.dtype.kind == "f")


def _readable(source: Any) -> Iterator[Mapping[str, Any]]:
    for index in spread(len(source)):
        with contextlib.suppress(SampleError):
            yield source[int(index)]


def _options(name: str, table: ViewTable) -> tuple[type[View], dict[str, Any]]:
    """A view's class and its options: the signature's default for normalize, the preset, then the view's own."""
    where = f"views.{name}.name"
    made = view_class(find_class(table.name, VIEWS, where), where)
    options = dict(table.options)
    if table.augment is not None:
        if not made.presets:
            raise RecipeError(f"views.{name}.augment: {table.name!r} has no presets; leave it out")
        if table.augment not in made.presets:
            near = nearest(table.augment, made.presets)
            raise RecipeError(f"views.{name}.augment: no preset {table.augment!r}{near}")
        options = {**made.presets[table.augment], **options}
    default = options_of(made).model_fields.get("normalize")
    if default is not None and default.default == "data":
        options.setdefault("normalize", "data")
    return made, options


def _build(name: str, view: ViewTable, shapes: Shapes) -> View:
    if view.source not in shapes:
        raise RecipeError(f"views.{name}.from: no column {view.source!r}{nearest(view.source, shapes)}")
    made, options = _options(name, view)
    try:
        built = construct(made, options, f"views.{name}", tuple(shapes[view.source]))
    except RecipeError as error:
        where = f"views.{name}"
        raise RecipeError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    if not built.shape:
        raise RecipeError(f"views.{name}.name: {view.name!r} does not set `shape`, the shape of one sample of the view")
    return built


def _owners(recipe_views: Mapping[str, ViewTable], views: Mapping[str, View]) -> dict[str, str]:
    """Expanded name -> expanded name of the view whose placement it repeats."""
    owners = {}
    for name, view in recipe_views.items():
        if view.geometry is None:
            continue
        owner = _root(name, recipe_views)
        mine, other = (views[end].geometry for end in (name, owner))
        if mine is None or type(mine) is not type(other):
            raise RecipeError(
                f"views.{name}.geometry: {name!r} and {owner!r} are no views of one kind with a geometry to share, "
                "such as two images or two signals"
            )
        own = [option for option in options_of(type(mine)).model_fields if option in view.options]
        if own:
            raise RecipeError(f"views.{name}.{own[0]}: the geometry is that of view {owner!r}; set it there")
        copies, theirs = view.count, recipe_views[owner].count
        if theirs not in (1, copies):
            raise RecipeError(f"views.{name}.count: {copies}, but view {owner!r} that it follows has {theirs} draws")
        followed = drawn(owner, theirs) * (copies if theirs == 1 else 1)
        owners.update(zip(drawn(name, copies), followed, strict=True))
    return owners


def _root(name: str, recipe_views: Mapping[str, ViewTable]) -> str:
    """Follow `geometry:` to the view that draws its own."""
    seen = [name]
    while (following := recipe_views[seen[-1]].geometry) is not None:
        if following not in recipe_views:
            raise RecipeError(f"views.{seen[-1]}.geometry: no view {following!r}{nearest(following, recipe_views)}")
        if following in seen:
            raise RecipeError(f"views.{name}.geometry: goes round in a circle: {' -> '.join([*seen, following])}")
        seen.append(following)
    return seen[-1]
