"""What a run is: typed tables, read from YAML, changed by dotted overrides, checked before anything is built.

in   a YAML file and `table.key=value` pairs
out  a frozen `Recipe`; or a `RecipeError` that names the place, what is accepted and the nearest match

Views and objectives have no tables of their own: a class's keyword-only signature is its schema (`construct`).
"""

import difflib
import importlib
import inspect
import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, model_validator

from mvssl.errors import RecipeError

Size = PositiveInt | tuple[PositiveInt, PositiveInt]


class Table(BaseModel):
    """A part of a recipe: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Column(Table):
    """One column of the batch: which field of a sample it is decoded from, and to what shape."""

    field: str = Field(description='field of the sample: jpg, rgb.jpg, cls, json; "jpg;png" takes either')
    size: Size | None = Field(
        None, description="canvas [height, width]; images of other sizes are resized and centre-cropped to it"
    )
    mode: Literal["rgb", "gray"] | None = Field(None, description="convert images to three channels or one")
    path: str | None = Field(None, description="dotted path inside a json field, array of an npz")
    classes: PositiveInt | None = Field(
        None, description="length of the multi-hot vector that a list of class numbers becomes"
    )


class Data(Table):
    """Where samples come from and how many make a batch."""

    root: str | None = Field(
        None, description="folder that shard patterns are relative to; default $MVSSL_DATA, else ./data"
    )
    pack: str | None = Field(None, description="source that `mvssl pack` knows, packed under root on first use")
    train: str | list[str] = Field([], description="shards to train on: paths, globs, {000..012} braces")
    val: str | list[str] = Field([], description="labelled shards that evaluate tests on")
    columns: dict[str, Column] = Field({}, description="the columns that views are made from")
    label: Column | None = Field(None, description="the column that evaluate predicts")
    batch_size: PositiveInt = Field(128, description="samples per optimizer step over all processes")
    workers: NonNegativeInt = Field(2, description="loader processes per training process")
    missing: Literal["drop", "mask", "error"] = Field(
        "drop", description="what happens to a sample that lacks a column"
    )
    max_bad: float = Field(0.001, ge=0, le=1, description="share of undecodable samples at which the run stops")

    @property
    def folder(self) -> Path:
        """The folder that shard patterns are relative to."""
        return Path(self.root or os.environ.get("MVSSL_DATA") or "data")


class View(Table):
    """One view: the column it is drawn from and, as further keys, the options of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    source: str = Field(alias="from", description="column of the batch")
    name: str = Field("image", description="image, vector, or package.module:Class")
    augment: str | None = Field(None, description="preset of options: dim, amdim, cmc, mib, simclr, crop_flip")
    geometry: str | None = Field(None, description="view whose crop, flip and warp this view repeats")
    count: PositiveInt = Field(1, description="independent draws of this view: NAME_0, NAME_1, ...")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the view's class."""
        return dict(self.model_extra or {})


class Encoder(Table):
    """A timm model, by name, for one view or several."""

    name: str = Field(description="timm model name, one of mvssl's own included")
    taps: list[int] | None = Field(None, description="which intermediate maps to keep; default all")
    pretrained: bool = Field(False, description="start from timm's weights (downloads)")
    init_from: str | None = Field(None, description="start from a run, an export folder or a safetensors file")
    options: dict[str, Any] = Field({}, description="keyword arguments of timm.create_model")


class Objective(Table):
    """One term of the loss: its class by name, its weight and, as further keys, the options of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    name: str = Field(description="dim, amdim, cmc, mib, or package.module:Class")
    weight: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the objective's class."""
        return dict(self.model_extra or {})


class Optim(Table):
    """The optimizer and its learning rate over the run."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0, description="not applied to norms, biases and other vectors")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: NonNegativeInt = Field(0, description="steps of linear warm-up")
    final: float = Field(0.0, ge=0, le=1, description="share of lr left at the end of the cosine")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")


class Train(Table):
    """How long, how precise, and where to."""

    epochs: float | None = Field(None, gt=0)
    steps: PositiveInt | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: NonNegativeInt = 0
    save_every: PositiveInt = Field(500, description="steps between checkpoints; the last step is always saved")
    keep: int = Field(2, ge=2, description="checkpoints kept")
    log_every: PositiveInt = Field(20, description="steps between lines of metrics.jsonl")
    trackers: list[str] = Field(["tensorboard"], description="accelerate trackers")
    joint_bn: bool = Field(True, description="views that share an encoder and a shape pass as one batch")
    out: str = Field(description="run folder")
    then: list[Literal["evaluate", "export", "views"]] = Field([], description="what to do after the last step")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Evaluate(Table):
    """What `mvssl evaluate` measures when the command line does not say."""

    probes: list[Literal["knn", "linear", "fewlabel"]] = ["knn", "linear", "fewlabel"]
    layer: str = Field("vector", description="vector, head (what the objective compares), or a map's number")
    shots: list[PositiveInt] = Field([1, 10], description="labels per class of the few-label probe")
    draws: PositiveInt = Field(20, description="random label sets per number of shots")


class Recipe(Table):
    """A whole run.

    A file may give `encoder` as one table, meaning all views, and `objective` as one table, meaning a single term; here
    they are always a dict by view, or group of views ("left,right"), and a list.
    """

    data: Data
    views: dict[str, View] = Field(min_length=1)
    encoder: dict[str, Encoder]
    objective: list[Objective] = Field(min_length=1)
    optim: Optim = Optim()
    train: Train
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, tables: Any) -> Any:
        return expand(tables) if isinstance(tables, Mapping) else tables


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number and aliases, which can blow up, are refused."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise RecipeError(
                f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not accepted in recipes"
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """YAML as data only; errors name `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds no Python objects
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{where}: not valid YAML: {str(error).splitlines()[0]} {getattr(error, 'problem_mark', '') or ''}".strip()
        ) from None


def nearest(word: str, accepted: Iterable[str]) -> str:
    """'; did you mean X?' where something accepted is near, and the list of what is."""
    accepted = list(accepted)
    close = difflib.get_close_matches(word, accepted, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (accepted: {', '.join(accepted) or 'none'})"


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `table.key=value` overrides. Raises `RecipeError`."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"recipe {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
        ) from None
    if len(text) > 1_000_000:
        raise RecipeError(f"recipe {path} is larger than 1 MB")
    tables = parse_yaml(text, str(path))
    if not isinstance(tables, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the tables {', '.join(Recipe.model_fields)}")
    for override in overrides:
        _override(tables, override)
    return parse_recipe(tables, str(path))


def expand(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Write the short forms out: one encoder table for all views, one objective table for a list of one."""
    whole = dict(tables)
    encoder, views = whole.get("encoder"), whole.get("views")
    if isinstance(encoder, Mapping) and "name" in encoder and isinstance(views, Mapping):
        whole["encoder"] = {",".join(map(str, views)): encoder}
    if isinstance(whole.get("objective"), Mapping):
        whole["objective"] = [whole["objective"]]
    return whole


def _override(tables: dict[str, Any], override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"{override!r} is not an override; write table.key=value, for example optim.lr=1e-3")
    *parents, last = dotted.split(".")
    here: Any = tables
    for depth, name in enumerate(parents):
        if isinstance(here, dict) and here.get(name) is None:
            here[name] = {}
        here = _inside(here, name, dotted)
        if not isinstance(here, dict | list):
            raise RecipeError(f"{dotted}: {'.'.join(parents[: depth + 1])} is a value, not a table")
    if isinstance(here, list):
        _inside(here, last, dotted)
    here[int(last) if isinstance(here, list) else last] = parse_yaml(value, override)


def _inside(table: Any, name: str, dotted: str) -> Any:
    if isinstance(table, dict):
        return table.get(name)
    if not name.isdigit() or int(name) >= len(table):
        raise RecipeError(f"{dotted}: a list of {len(table)} has the places 0 to {len(table) - 1}, not {name!r}")
    return table[int(name)]


def parse_recipe(tables: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check tables and build the `Recipe`. Raises a `RecipeError` that lists every fault."""
    faults = list(_unknown_keys(Recipe, expand(tables), ""))
    if not faults:
        try:
            recipe = Recipe.model_validate(tables)
        except pydantic.ValidationError as error:
            faults = _sentences(error)
        else:
            faults = list(_crossed(recipe))
            if not faults:
                return recipe
    raise RecipeError("\n".join(f"{where}: {fault}" for fault in faults))


def _unknown_keys(table: type[BaseModel], given: Any, place: str) -> Iterable[str]:
    """Every key of `given`, at any depth, that the tables do not have."""
    if not isinstance(given, Mapping):
        return
    fields = {field.alias or name: field.annotation for name, field in table.model_fields.items()}
    for key, value in given.items():
        if key in fields:
            for inner, item, step in _tables_in(fields[key], value):
                yield from _unknown_keys(inner, item, f"{place}{key}.{step}")
        elif table.model_config.get("extra") != "allow":
            yield f"{place}{key}: unknown key{nearest(str(key), fields)}"


def _tables_in(annotation: Any, value: Any) -> Iterable[tuple[type[BaseModel], Any, str]]:
    """The tables inside a value, as its annotation has them: itself, values of a dict, items of a list."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, value, ""
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from ((table, given, f"{key}.{step}") for table, given, step in _tables_in(inside[1], item))
    elif origin is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from ((table, given, f"{number}.{step}") for table, given, step in _tables_in(inside[0], item))
    elif origin is not dict and origin is not list:
        for option in inside:
            yield from _tables_in(option, value)


def _sentences(error: pydantic.ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        # pydantic adds the branch of a union ("constrained-int") to the place; the user wrote no such key
        place = ".".join(str(part) for part in fault["loc"] if not re.search(r"[-\[(]", str(part)))
        given = "" if fault["type"] in ("missing", "value_error") else f", not {fault['input']!r}"
        said = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        lines.append(f"{place}: {'is required' if fault['type'] == 'missing' else said}{given}")
    return list(dict.fromkeys(lines))


def _crossed(recipe: Recipe) -> Iterable[str]:
    """Faults that only show between tables."""
    for name, view in recipe.views.items():
        if not name.isidentifier():
            yield f"views.{name}: a view's name is letters, digits and _"
        if recipe.data.columns and view.source not in recipe.data.columns:
            yield f"views.{name}.from: no column {view.source!r}{nearest(view.source, recipe.data.columns)}"
        if view.geometry is not None and view.geometry not in recipe.views:
            yield f"views.{name}.geometry: no view {view.geometry!r}{nearest(view.geometry, recipe.views)}"
    listed = [view.strip() for group in recipe.encoder for view in group.split(",")]
    for name in listed:
        if name not in recipe.views:
            yield f"encoder.{name}: no view {name!r}{nearest(name, recipe.views)}"
    for name in recipe.views:
        if listed.count(name) != 1:
            yield f"encoder: view {name!r} needs exactly one encoder; it has {listed.count(name)}"


def find_class(name: str, builtin: Mapping[str, type], where: str) -> type:
    """The class for a recipe's name: one of `builtin`, or an import path package.module:Class."""
    if name in builtin:
        return builtin[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(f"{where}: no {name!r}{nearest(name, [*builtin, 'package.module:Class'])}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{where}: {name!r} cannot be imported: {error}") from None


def options_of(made: type) -> type[BaseModel]:
    """The keyword-only arguments of a class's constructor as a table: names, types, defaults."""
    hints = typing.get_type_hints(made.__init__, include_extras=True)
    keywords = [p for p in inspect.signature(made).parameters.values() if p.kind is p.KEYWORD_ONLY]
    fields = {p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default) for p in keywords}
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return pydantic.create_model(made.__name__, __config__=config, **fields)  # pyright: ignore[reportCallIssue, reportArgumentType]


def construct(made: type, options: Mapping[str, Any], where: str, *arguments: Any) -> Any:
    """Build `made(*arguments, **options)` with its options checked against its signature. Raises `RecipeError`."""
    table = options_of(made)
    faults = list(_unknown_keys(table, options, f"{where}."))
    if faults:
        raise RecipeError("\n".join(faults))
    try:
        checked = table.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(f"{where}.{line}" for line in _sentences(error))) from None
    return made(*arguments, **{name: getattr(checked, name) for name in options})


def schema() -> dict[str, Any]:
    """JSON schema of a recipe, with the options of the built-in views and objectives."""
    from mvssl.objectives import OBJECTIVES
    from mvssl.views import VIEWS

    whole = Recipe.model_json_schema()
    for kind, classes in (("View", VIEWS), ("Objective", OBJECTIVES)):
        options = {name: options_of(made).model_json_schema() for name, made in classes.items()}
        whole["$defs"][kind]["anyOf"] = [
            {"title": name, "properties": {"name": {"const": name}, **table.get("properties", {})}}
            for name, table in options.items()
        ]
        for table in options.values():
            whole["$defs"].update(table.get("$defs", {}))
    return whole


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every value written out, as the run folder keeps it."""
    tables = TypeAdapter(Recipe).dump_python(recipe, mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(tables, sort_keys=False, width=120)
