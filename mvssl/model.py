"""Encoders and objectives in one module: what DDP wraps is what is differentiated.

in   views by name, each [n, c, h, w], [n, c, t] or [n, d], and a `Context`
out  the loss, a scalar that is equal on every process, and detached metrics
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import SyncBatchNorm
from mvssl.distributed.devices import laid_out, rows_of, scattered
from mvssl.encoders import Encoder, Features, Widths
from mvssl.encoders.encoder import as_image, first_line, with_view
from mvssl.errors import MvsslError, RecipeError
from mvssl.objectives import OBJECTIVES
from mvssl.objectives.context import Context, at_least_float32
from mvssl.recipe import Recipe
from mvssl.recipe.options import construct, find_class
from mvssl.views.bands import kept_names
from mvssl.views.naming import drawn


class Term(NamedTuple):
    """One objective of the sum."""

    name: str
    weight: float
    objective: nn.Module


class MultiView(nn.Module):
    """Encoders by group of views ("left,right") and the weighted sum of objectives.

    `names` says which base view a drawn view comes from where they differ: {"a_0": "a", "a_1": "a"}. With `joint_bn`
    views that share an encoder and a shape pass as one batch and batch norm sees them together; otherwise one by one.
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
        self.labels = _distinct([term.name for term in terms])
        self.joint_bn = joint_bn
        self.groups = {view.strip(): group for group in encoders for view in group.split(",")}
        self.groups |= {view: self.groups[base] for view, base in (names or {}).items()}

    def forward(self, views: Mapping[str, Tensor], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.encode(views, context.present)
        # Maps stay as the encoder made them, for whoever reads one to raise: all of them at once are gigabytes.
        features = {view: found._replace(vector=at_least_float32(found.vector)) for view, found in features.items()}
        device = next(iter(views.values())).device.type
        losses, metrics = [], {}
        with torch.autocast(device, enabled=False):  # scores in bf16 lose the difference between candidates
            for label, weight, objective in zip(self.labels, self.weights, self.objective, strict=True):
                own = replace(context, draws=context.draws.within(label))  # two terms of one class draw apart
                loss, found = objective(_seen(objective, features, views), own)
                losses.append(weight * loss)
                metrics |= {f"{label}/{name}" if len(self.labels) > 1 else name: value for name, value in found.items()}
                if len(self.labels) > 1:
                    metrics[f"{label}/loss"] = loss.detach()
        return torch.stack(losses).sum(), metrics

    def encode(self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[str, Features]:
        """Features of each view; rows that `present` (bool [n] on the CPU) calls absent meet no encoder and are 0."""
        rows = {view: rows_of(mask, views[view].device) for view, mask in (present or {}).items() if view in views}
        together = defaultdict(list)
        for view, x in views.items():
            together[(self.groups[view], x.shape[1:]) if self.joint_bn else view].append(view)
        found = {}
        for names in together.values():
            there = [views[view].index_select(0, rows[view]) if view in rows else views[view] for view in names]
            features = _encode(self.encoder_of(names[0]), torch.cat(there) if len(there) > 1 else there[0])
            parts = zip(*(t.split([len(x) for x in there]) for t in (*features.maps, features.vector)), strict=True)
            for view, part in zip(names, parts, strict=True):
                n = len(views[view])
                *maps, vector = [scattered(t, rows[view], n) for t in part] if view in rows else part
                found[view] = Features(tuple(maps), vector)
        return {view: found[view] for view in views}

    def encoder_of(self, view: str) -> Encoder:
        """The encoder of a view, by its name in the recipe or as drawn (a, or a_0)."""
        return self.encoders[self.groups[view]]  # pyright: ignore[reportReturnType]


def reads_views(objective: object) -> bool:
    """Whether an objective or its class asks for the views themselves, as map 0 of their features."""
    return getattr(objective, "reads_views", False)


def _seen(objective: nn.Module, features: dict[str, Features], views: Mapping[str, Tensor]) -> dict[str, Features]:
    if not reads_views(objective):
        return features
    return {view: with_view(found, views[view]) for view, found in features.items()}


def _encode(encoder: Encoder, x: Tensor) -> Features:
    x = laid_out(x, encoder)
    if len(x) or (collectives.world() > 1 and _synchronises(encoder)):
        return encoder(x)
    # No row is present: a blank one in eval mode changes no statistics and keeps the graph, which DDP counts on.
    training = encoder.training
    features = encoder.eval()(x.new_zeros(1, *x.shape[1:]))
    encoder.train(training)
    return Features(tuple(m[:0] for m in features.maps), features.vector[:0])


def _synchronises(encoder: Encoder) -> bool:
    """Whether the other processes wait for this one inside the encoder."""
    return encoder.training and any(
        isinstance(module, nn.SyncBatchNorm | SyncBatchNorm) for module in encoder.modules()
    )


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{names[:i].count(name)}" for i, name in enumerate(names)]


def build_model(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], *, start_weights: bool = True) -> MultiView:
    """The model of a recipe for views of the given shapes (by view as drawn: a view with count 2 is a_0 and a_1).

    Weights are drawn from torch's generator, which the caller seeds, in the recipe's order; with `start_weights` false,
    `pretrained` and `init_from` are left alone, since a checkpoint follows. Raises `RecipeError`.
    """
    for view in recipe.views:
        _check_name(view)
    names = {view: drawn(view, table.count) for view, table in recipe.views.items()}
    encoders = {}
    for group, table in recipe.encoder.items():
        sizes = {view: tuple(shapes[view]) for base in group.split(",") for view in names[base.strip()]}
        _check_channels(group, sizes)
        largest = max(sizes.values(), key=lambda shape: shape[1:])
        bands = {base.strip(): kept_names(recipe.views[base.strip()].options) for base in group.split(",")}
        encoders[group] = Encoder(table, largest, group, start_weights=start_weights, bands=bands)
    widths = _widths(encoders, names, shapes)
    terms = []
    for number, table in enumerate(recipe.objective):
        where = f"objective.{number}"
        made = find_class(table.name, OBJECTIVES, where)
        label = table.name.rpartition(":")[2]
        given = widths
        if reads_views(made):
            given = {view: w._replace(maps=(as_image(tuple(shapes[view])), *w.maps)) for view, w in widths.items()}
        terms.append(Term(label, table.weight, construct(made, table.options, where, given)))
    bases = {view: base for base, draws in names.items() for view in draws}
    return MultiView(encoders, terms, bases, joint_bn=recipe.train.joint_bn)


def _check_name(view: str) -> None:
    """Refuse names under which `nn.ModuleDict` has something of its own: nothing can stand there by view."""
    if hasattr(nn.ModuleDict(), view):
        raise RecipeError(
            f"views.{view}: torch's modules have an attribute {view!r} already; call the view {view}_view, for example"
        )


def _check_channels(group: str, sizes: Mapping[str, tuple[int, ...]]) -> None:
    if len({(len(shape), shape[0]) for shape in sizes.values()}) > 1:
        listed = ", ".join(f"{view} {shape}" for view, shape in sizes.items())
        raise RecipeError(
            f"encoder.{group}: views that share an encoder need equal channels, these have {listed}; "
            "give each view its own table under encoder"
        )


def _widths(
    encoders: Mapping[str, Encoder], names: Mapping[str, list[str]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Widths]:
    owner = {base.strip(): encoder for group, encoder in encoders.items() for base in group.split(",")}
    measured: dict[tuple[int, tuple[int, ...]], Widths] = {}
    widths = {}
    for base, draws in names.items():
        for view in draws:
            key = id(owner[base]), tuple(shapes[view])
            if key not in measured:
                same = key[1] == owner[base].shape
                measured[key] = owner[base].widths if same else owner[base].measure(key[1])
            widths[view] = measured[key]._replace(base=base)
    return widths


def _try_encoder(encoder: Encoder, x: Tensor) -> None:
    """One pass as in training; some options, such as rates of dropout beyond 1, fail there and not in eval mode."""
    try:
        with torch.no_grad():
            encoder(laid_out(x, encoder))
    except MvsslError:
        raise
    except Exception as error:  # whatever the recipe's options make timm raise
        raise encoder.refusal(tuple(x.shape[1:]), f"in training, {first_line(error)}") from None


def unreached(model: MultiView, views: Mapping[str, Tensor], context: Context) -> list[str]:
    """Names of the trainable parameters that no loss reaches, by one backward pass on the given batch.

    Gradients, buffers, torch's generator and training mode are left as they were. Every process must call it. Raises
    `RecipeError` for an encoder that fails in training mode alone.
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
    missed = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    with torch.no_grad():
        for module, key, buffer, before in buffers:
            module._buffers[key] = buffer.copy_(before)
    for name, parameter in model.named_parameters():
        parameter.grad = grads[name]
    return missed
