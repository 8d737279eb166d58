"""Encoders and objectives in one module, which DDP wraps.

in   views by name, each [n, c, h, w], [n, c, t] or [n, d], and a `Context`
out  the loss, a scalar that is equal on every process, and detached metrics
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mvssl.data.batch import Batch
from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import SyncBatchNorm
from mvssl.distributed.devices import join_rows, laid_out, memory_format_for, scattered, true_indices
from mvssl.encoders import Encoder, Features, Widths, as_image, at_least_float32, with_view
from mvssl.encoders.encoder import first_line
from mvssl.errors import MvsslError, RecipeError
from mvssl.objectives import Context, Objective, ScoreObserver, build_objective, find_objective
from mvssl.objectives.metric_names import MetricName
from mvssl.random import Draws
from mvssl.recipe import Recipe
from mvssl.recipe.draw_names import list_draw_names
from mvssl.text import split_names
from mvssl.views import ViewSet
from mvssl.views.channels import kept_band_names


class Term(NamedTuple):
    """One objective of the weighted sum."""

    name: str
    weight: float
    objective: Objective


class MultiView(nn.Module):
    """Encoders by group of views ("left,right") and the weighted sum of objectives.

    `names` gives the base view of each drawn view where they differ: {"a_0": "a", "a_1": "a"}. With `joint_bn` views
    that share an encoder and a shape pass it as one batch, so batch norm sees them together; otherwise one by one.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        terms: Iterable[Term],
        names: Mapping[str, str] | None = None,
        *,
        joint_bn: bool = True,
    ):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        terms = list(terms)
        self.objective = nn.ModuleList(term.objective for term in terms)
        self.weights = [term.weight for term in terms]
        self.labels = _make_distinct([term.name for term in terms])
        self.joint_bn = joint_bn
        self.groups = {view: group for group in encoders for view in split_names(group)}
        self.groups |= {view: self.groups[base] for view, base in (names or {}).items()}
        self._layouts: dict[tuple[str, str], torch.memory_format] = {}  # by group and type of device

    @property
    def terms(self) -> list[Term]:
        """The terms of the loss under distinct names: cmc_0 and cmc_1 where two have the same name."""
        objectives = cast(Iterable[Objective], self.objective)
        return [Term(*term) for term in zip(self.labels, self.weights, objectives, strict=True)]

    def forward(self, views: Mapping[str, Tensor], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the objectives' losses, and their metrics by key."""
        features = self.encode(views, context.present)
        # An objective raises the map that it reads: all maps in float32 at once would take gigabytes.
        features = {view: f._replace(vector=at_least_float32(f.vector)) for view, f in features.items()}
        with_views = {view: with_view(f, views[view]) for view, f in features.items()}
        device = next(iter(views.values())).device.type
        losses, metrics = [], {}
        with torch.autocast(device, enabled=False):  # scores in bf16 lose the difference between candidates
            for name, weight, objective in self.terms:
                own = replace(context, draws=context.draws.within(name))  # two terms of one class draw differently
                loss, measured = objective(with_views if objective.reads_views else features, own)
                losses.append(weight * loss)
                metrics |= self._label_metrics(name, loss, measured)
        return torch.stack(losses).sum(), metrics

    def _label_metrics(self, term: str, loss: Tensor, measured: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of a term by key. With several terms keys begin with its name, and its loss is added."""
        if len(self.labels) == 1:
            return dict(measured)
        values = {**measured, "loss": loss.detach()}
        return {str(MetricName.parse(key)._replace(term=term)): value for key, value in values.items()}

    def encode(self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[str, Features]:
        """Return the features of each view.

        Rows that are False in `present` (bool [n] on the CPU, by view) do not pass the encoder; their features are 0.
        """
        rows = {view: true_indices(mask, views[view].device) for view, mask in (present or {}).items() if view in views}
        batches = defaultdict(list)
        for view, x in views.items():
            batches[(self.groups[view], x.shape[1:]) if self.joint_bn else view].append(view)
        encoded = {}
        for names in batches.values():
            inputs = [views[view].index_select(0, rows[view]) if view in rows else views[view] for view in names]
            features = _encode(self.encoder_of(names[0]), join_rows(inputs, self._layout(names[0], inputs[0].device)))
            sizes = [len(x) for x in inputs]
            parts = zip(*(t.split(sizes) for t in (*features.maps, features.vector)), strict=True)
            for view, part in zip(names, parts, strict=True):
                n = len(views[view])
                *maps, vector = [scattered(t, rows[view], n) for t in part] if view in rows else part
                encoded[view] = Features(tuple(maps), vector)
        return {view: encoded[view] for view in views}

    def _layout(self, view: str, device: torch.device) -> torch.memory_format:
        """Return the memory format of an encoder's images; it is found once, from all of its layers."""
        key = self.groups[view], device.type
        if key not in self._layouts:
            self._layouts[key] = memory_format_for(self.encoder_of(view), device)
        return self._layouts[key]

    def encoder_of(self, view: str) -> Encoder:
        """Return the encoder of a view, by its name in the recipe or as drawn (a, or a_0)."""
        return self.encoders[self.groups[view]]  # pyright: ignore[reportReturnType]


def _encode(encoder: Encoder, x: Tensor) -> Features:
    if len(x) or (collectives.world_size() > 1 and _synchronises(encoder)):
        return encoder(x)
    # No row is present. A blank row in eval mode changes no statistics and keeps the graph, which DDP needs.
    training = encoder.training
    features = encoder.eval()(x.new_zeros(1, *x.shape[1:]))
    encoder.train(training)
    return Features(tuple(m[:0] for m in features.maps), features.vector[:0])


def _synchronises(encoder: Encoder) -> bool:
    """Whether the other processes wait for this one inside the encoder."""
    return encoder.training and any(
        isinstance(module, nn.SyncBatchNorm | SyncBatchNorm) for module in encoder.modules()
    )


def _make_distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{names[:i].count(name)}" for i, name in enumerate(names)]


def build_model(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], *, start_weights: bool = True) -> MultiView:
    """Return the model of a recipe for views of the given shapes, by drawn name (a view with count 2 is a_0 and a_1).

    Weights are drawn from torch's generator, which the caller seeds, in the recipe's order. With `start_weights` false
    `pretrained` and `init_from` are ignored, since a checkpoint follows. Raises `RecipeError`.
    """
    for view in recipe.views:
        _check_name(view)
    names = {view: list_draw_names(view, table.count) for view, table in recipe.views.items()}
    bases = {name: view for view in recipe.views for name in names[view]}
    encoders = {}
    for group in recipe.encoder:
        sizes = {name: tuple(shapes[name]) for view in split_names(group) for name in names[view]}
        encoders[group] = _build_encoder(recipe, group, sizes, start_weights)
    widths = _measure_widths(encoders, bases, shapes)
    terms = []
    for number, table in enumerate(recipe.objective):
        where = f"objective.{number}"
        made = find_objective(table.name, where)
        given = widths
        if made.reads_views:
            given = {view: w._replace(maps=(as_image(tuple(shapes[view])), *w.maps)) for view, w in widths.items()}
        objective = build_objective(made, table.options, where, given)
        terms.append(Term(table.name.rpartition(":")[2], table.weight, objective))
    return MultiView(encoders, terms, bases, joint_bn=recipe.train.joint_bn)


def build_context(
    batch: Batch, views: ViewSet, step: int, seed: int, device: torch.device, observer: ScoreObserver | None = None
) -> Context:
    """Return the context of a batch whose views were drawn by `views` with `seed`, at `step` (from 0)."""
    draws = Draws(seed, batch.position, device, scope="objective")
    return Context(step, batch.index, draws, views.present(batch, views.names), observer)


def _build_encoder(recipe: Recipe, group: str, sizes: Mapping[str, tuple[int, ...]], start_weights: bool) -> Encoder:
    """The encoder of a group, whose drawn views have these sizes."""
    if len({(len(shape), shape[0]) for shape in sizes.values()}) > 1:
        listed = ", ".join(f"{view} {shape}" for view, shape in sizes.items())
        raise RecipeError(
            f"encoder.{group}: views that share an encoder need equal channels, these have {listed}; "
            "give each view its own table under encoder"
        )
    largest = max(sizes.values(), key=lambda shape: shape[1:])
    bands = {view: kept_band_names(recipe.views[view].options) for view in split_names(group)}
    return Encoder(recipe.encoder[group], largest, group, start_weights=start_weights, bands=bands)


def _measure_widths(
    encoders: Mapping[str, Encoder], bases: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Widths]:
    """The sizes of the features of each drawn view; an encoder is measured once for each shape."""
    owner = {view: encoder for group, encoder in encoders.items() for view in split_names(group)}
    measured = {(id(encoder), encoder.shape): encoder.widths for encoder in encoders.values()}
    widths = {}
    for name, base in bases.items():
        encoder, shape = owner[base], tuple(shapes[name])
        if (id(encoder), shape) not in measured:
            measured[id(encoder), shape] = encoder.measure(shape)
        widths[name] = measured[id(encoder), shape]._replace(base=base)
    return widths


def _check_name(view: str) -> None:
    """Raise `RecipeError` for a name that is an attribute of `nn.ModuleDict`, since modules are kept there by view."""
    if hasattr(nn.ModuleDict(), view):
        raise RecipeError(
            f"views.{view}: torch's modules have an attribute {view!r} already; call the view {view}_view, for example"
        )


def _try_encoder(encoder: Encoder, x: Tensor) -> None:
    """One pass as in training; some options, such as dropout rates above 1, fail there and not in eval mode."""
    try:
        with torch.no_grad():
            encoder(laid_out(x, encoder))
    except MvsslError:
        raise
    except Exception as error:  # timm may raise anything for options of the recipe
        raise encoder.refusal(tuple(x.shape[1:]), f"in training, {first_line(error)}") from None


def find_idle_parameters(model: MultiView, views: Mapping[str, Tensor], context: Context) -> list[str]:
    """Return the names of the trainable parameters that no loss reaches, by one backward pass on the given batch.

    Gradients, buffers, torch's generator and training mode are restored. Every process must call it. Raises
    `RecipeError` for an encoder that fails in training mode only.
    """
    buffers = [
        (module, key, b, b.clone()) for module in model.modules() for key, b in module._buffers.items() if b is not None
    ]
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    devices = [x.device for x in views.values() if x.is_cuda][:1]
    model.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=devices):
        for view, x in views.items():
            _try_encoder(model.encoder_of(view), x)
        loss, _ = model(views, context)
        if loss.requires_grad:
            loss.backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    with torch.no_grad():
        for module, key, buffer, before in buffers:
            module._buffers[key] = buffer.copy_(before)
    for name, parameter in model.named_parameters():
        parameter.grad = grads[name]
    return idle
