"""The views of a recipe, made from the columns of a batch.

in   Batch(columns, position, ...), a seed
out  dict view name -> float32 [n, *shape], in recipe order; a view with `count: 2` is drawn twice, as NAME_0 and NAME_1

A draw depends on (seed, position, name of the view, operation), and not on the batch, the process or the device.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mvssl.data.batch import Batch
from mvssl.data.order import spread_indices
from mvssl.data.sample_errors import SampleError
from mvssl.data.source import Source
from mvssl.distributed.devices import arithmetic
from mvssl.errors import DataError, RecipeError
from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.recipe.draw_names import list_draw_names
from mvssl.recipe.messages import nearest
from mvssl.recipe.options import construct, find_class, options_of
from mvssl.views.base import DrawnView, Geometry, View, view_class
from mvssl.views.images.image import ImageView
from mvssl.views.logmel import LogMelView
from mvssl.views.normalize import SAMPLES, ChannelMoments
from mvssl.views.parameters import ParameterDraw, is_drawn_ahead
from mvssl.views.signal import SignalView
from mvssl.views.vector import VectorView

VIEWS: dict[str, type[View]] = {"image": ImageView, "signal": SignalView, "logmel": LogMelView, "vector": VectorView}
Shapes = Mapping[str, tuple[int, ...]]
AT_ONCE = 1 << 20  # values of a view whose mean and standard deviation are measured together


class ViewSet:
    """All views of a recipe; `build_views` makes one.

    names    one for each draw: a view `a` with `count: 2` gives `a_0` and `a_1`
    shapes   shape of one sample, for each of `names`
    bases    the view names in the recipe; `clean` returns views under these names
    draw     draws the random parameters; loaders call it in their workers. Other views draw when they are called
    """

    def __init__(self, tables: Mapping[str, ViewConfig], views: Mapping[str, View], leaders: Mapping[str, str]):
        self.bases, self._tables, self._views, self._leaders = list(views), tables, views, leaders
        self._base = {name: base for base, table in tables.items() for name in list_draw_names(base, table.count)}
        self.names = list(self._base)
        self.shapes = {name: tuple(views[base].shape) for name, base in self._base.items()}
        ahead = {name: view for name in self.names if is_drawn_ahead(view := self.view(name))}
        followed = {leaders[name] for name in ahead if name in leaders}
        self.draw = ParameterDraw(
            cast(dict[str, DrawnView], ahead), leaders, {name: self._geometry(name) for name in followed}
        )

    def source_of(self, name: str) -> str:
        """Return the column of a view. `name` is a drawn name or the name in the recipe."""
        return self._tables[self._base.get(name, name)].source

    def leader_of(self, name: str) -> str:
        """Return the drawn view whose crop, flip and masks this one repeats, or its own name if it repeats none."""
        return self._leaders.get(name, name)

    def view(self, name: str) -> View:
        """Return the view by a drawn name or by its name in the recipe."""
        return self._views[self._base.get(name, name)]

    def __call__(self, batch: Any, seed: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return training draws of every view, on `device`.

        The loader's parameters are used if they were drawn for this seed and these samples. Else they are drawn here.
        """
        drawn = batch.drawn if isinstance(batch, Batch) else None
        if drawn is None or not drawn.belongs_to(seed, batch.position):
            drawn = self.draw(batch.position, seed)
        draws = Draws(seed, batch.position, scope="view")
        with _full_precision(device):
            columns, parameters = self._columns(batch, device), drawn.on(device)
            return {name: self._make(name, columns[self.source_of(name)], parameters, draws) for name in self.names}

    def clean(self, batch: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return every view once, under its name in the recipe and without augmentation."""
        with _full_precision(device):
            columns = self._columns(batch, device)
            return {base: self._views[base](columns[self.source_of(base)], None) for base in self.bases}

    def present(self, batch: Any, names: Iterable[str]) -> dict[str, Tensor]:
        """Return which rows have each of the named views, bool [n] on the CPU. Only views that samples may lack."""
        columns = {name: self.source_of(name) for name in names}
        return {name: batch.present[column] for name, column in columns.items() if column in batch.present}

    def _columns(self, batch: Any, device: torch.device | str) -> dict[str, Tensor]:
        used = dict.fromkeys(table.source for table in self._tables.values())
        return {column: batch.columns[column].to(device, non_blocking=True) for column in used}

    def _make(self, name: str, column: Tensor, parameters: dict[str, Any], draws: Draws) -> Tensor:
        if name in self.draw.views:
            return self.draw.views[name].apply(column, parameters[name], draws.within(name))
        if name not in self._leaders:
            return self.view(name)(column, draws.within(name))
        leader, follow = self.leader_of(name), cast(Callable[..., Tensor], self.view(name))
        return follow(column, draws.within(name), self._geometry(leader).draw(draws.within(leader)))

    def _geometry(self, leader: str) -> Geometry:
        return cast(Geometry, self.view(leader).geometry)


@contextlib.contextmanager
def _full_precision(device: torch.device | str) -> Iterator[None]:
    """Compute in IEEE float32 and without gradients inside the block, whatever the precision of the run is."""
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False), arithmetic("fp32"):
        yield


def build_views(recipe_views: Mapping[str, ViewConfig], shapes: Shapes) -> ViewSet:
    """Return the views of a recipe. `shapes` are the shapes of one sample of each column. Raises `RecipeError`.

    Views with `normalize: data` need `resolve_statistics` first.
    """
    views = {name: _build(name, view, shapes) for name, view in recipe_views.items()}
    names = [name for base, view in recipe_views.items() for name in list_draw_names(base, view.count)]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"views: two views are called {name!r}; one with count: 2 is called NAME_0 and NAME_1")
    return ViewSet(recipe_views, views, _find_leaders(recipe_views, views))


def build_matching_views(
    recipe_views: Mapping[str, ViewConfig], shapes: Shapes, known: Mapping[str, tuple[int, ...]], whose: str
) -> ViewSet:
    """Return the views for columns of other shards. Raises `DataError` if the shapes differ from `known`.

    `known` are the shapes of the views of the run or model that `whose` names.
    """
    try:
        views = build_views(recipe_views, shapes)
    except RecipeError as error:
        raise DataError(f"these shards do not fit the views of {whose}: {error}") from None
    for name, shape in views.shapes.items():
        if name in known and shape != known[name]:
            sized = len(shape) == 3 and shape[0] == known[name][0]
            advice = f"; data.columns.{views.source_of(name)}.size=N may help" if sized else ""
            here, there = list(shape), list(known[name])
            raise DataError(f"view {name} is {here} in these shards, but {there} where {whose} learned it{advice}")
    return views


def resolve_statistics(recipe_views: Mapping[str, ViewConfig], shapes: Shapes, source: Source) -> dict[str, ViewConfig]:
    """Return the same views with `normalize: data` replaced by numbers, as the resolved recipe should hold them.

    They are measured on at most 2048 samples evenly spaced over `source`, on the clean view, for each channel or
    feature. Samples that cannot be decoded, missing columns, values that are not finite and `nodata` are left out.
    Images of floats are measured by default, because each instrument has its range.
    """
    resolved, moments = dict(recipe_views), {}
    for name, view in recipe_views.items():
        if needs_measuring(name, view, source):
            resolved[name] = view.model_copy(update={"normalize": "none"})
            moments[name] = _build(name, resolved[name], shapes), ChannelMoments()
    samples = _readable_samples(source) if moments else iter(())
    largest = max((math.prod((*view.shape, 1)) for view, _ in moments.values()), default=1)
    while some := list(itertools.islice(samples, max(1, AT_ONCE // largest))):
        for name, (view, running) in moments.items():
            columns = [sample.get(recipe_views[name].source) for sample in some]
            if present := [np.asarray(column) for column in columns if column is not None]:
                running.add(view.measured(torch.from_numpy(np.stack(present))))
    for name, (_, running) in moments.items():
        resolved[name] = recipe_views[name].model_copy(update={"normalize": running.to_recipe()})
    return resolved


def needs_measuring(name: str, view: ViewConfig, source: Source) -> bool:
    """Whether the mean and standard deviation of a view are measured on `source`."""
    made, options = _options(name, view)
    spec = source.specs.get(view.source)
    return made.needs_statistics(options, spec is not None and spec.dtype.kind == "f")


def _readable_samples(source: Source) -> Iterator[Mapping[str, Any]]:
    for index in spread_indices(len(source), SAMPLES):
        with contextlib.suppress(SampleError):
            yield source[int(index)]


def _options(name: str, table: ViewConfig) -> tuple[type[View], dict[str, Any]]:
    """Return a view's class and options: the signature's default of normalize, the preset, then the view's own."""
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


def _build(name: str, view: ViewConfig, shapes: Shapes) -> View:
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


def _find_leaders(recipe_views: Mapping[str, ViewConfig], views: Mapping[str, View]) -> dict[str, str]:
    """Map each drawn view with `geometry: OTHER` to the drawn view whose placement it repeats."""
    leaders = {}
    for name, view in recipe_views.items():
        if view.geometry is None:
            continue
        leader = _find_leader(name, recipe_views)
        mine, other = (views[end].geometry for end in (name, leader))
        if mine is None or type(mine) is not type(other):
            raise RecipeError(
                f"views.{name}.geometry: {name!r} and {leader!r} are no views of one kind with a geometry to share, "
                "such as two images or two signals"
            )
        own = [option for option in options_of(type(mine)).model_fields if option in view.options]
        if own:
            raise RecipeError(f"views.{name}.{own[0]}: the geometry is that of view {leader!r}; set it there")
        copies, theirs = view.count, recipe_views[leader].count
        if theirs not in (1, copies):
            raise RecipeError(
                f"views.{name}.count: {copies}, but view {leader!r}, whose geometry it repeats, has {theirs} draws"
            )
        followed = list_draw_names(leader, theirs) * (copies if theirs == 1 else 1)
        leaders.update(zip(list_draw_names(name, copies), followed, strict=True))
    return leaders


def _find_leader(name: str, recipe_views: Mapping[str, ViewConfig]) -> str:
    """Return the view at the end of the chain of `geometry:`, which draws its own."""
    seen = [name]
    while (following := recipe_views[seen[-1]].geometry) is not None:
        if following not in recipe_views:
            raise RecipeError(f"views.{seen[-1]}.geometry: no view {following!r}{nearest(following, recipe_views)}")
        if following in seen:
            raise RecipeError(f"views.{name}.geometry: is a circle: {' -> '.join([*seen, following])}")
        seen.append(following)
    return seen[-1]
