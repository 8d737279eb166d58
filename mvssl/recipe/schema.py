"""The tables of a recipe: every key with its type, limits, default and description.

in   plain dicts
out  a frozen `Recipe` with valid values (`mvssl.recipe.consistency` checks that they fit each other)

Options of views and objectives have no tables here: the signature of a class is its schema (see `options`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from mvssl.files import check_home, expand_home, home_path
from mvssl.recipe.strict import Strict

Count = Annotated[int, Field(gt=0, le=10**9)]
Size = Count | tuple[Count, Count]
Share = Annotated[float, Field(ge=0, lt=1)]
Place = Annotated[str, AfterValidator(check_home)]  # a path, a pattern or a source; ~ is expanded when it is used


class Config(Strict):
    """A part of a recipe. Unknown keys are errors, and values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Column(Config):
    """One column of the batch: the field of a sample that it is decoded from, and its shape."""

    field: str = Field(description='field of the sample: jpg, rgb.jpg, cls, json; "jpg;png" takes either')
    size: Size | None = Field(
        default=None, description="canvas [height, width]; images of other sizes are resized and centre-cropped to it"
    )
    mode: Literal["rgb", "gray", "mono"] | None = Field(
        default=None, description="convert images to three channels or one, sound to one"
    )
    interpolation: Literal["bilinear", "nearest"] = Field(
        default="bilinear", description="how size resizes; nearest keeps numbers that stand for classes, or a palette's"
    )
    channels_last: bool = Field(
        default=False,
        description="arrays are stored as [t, c] or [h, w, c], and turned to [c, t] or [c, h, w]; "
        "to be said where both could be meant",
    )
    nan: float | None = Field(
        default=None, description="value that NaN become, such as a view's nodata; by default they make a bad sample"
    )
    rate: Count | None = Field(
        default=None, description="samples per second; wav files of another rate are resampled to it"
    )
    length: Count | None = Field(
        default=None, description="samples [t]; longer signals keep their beginning, shorter ones end in zeros"
    )
    path: str | None = Field(default=None, description="dotted path inside a json field, array of an npz")
    names: list[str] | None = Field(
        default=None, min_length=1, description="texts in the order of the class numbers that they stand for"
    )
    classes: Count | None = Field(
        default=None, description="length of the multi-hot vector that a list of class numbers becomes"
    )


class Data(Config):
    """Where samples come from and how many make a batch."""

    root: Place | None = Field(
        default=None, description="folder that shard patterns are relative to; default $MVSSL_DATA, else ./data"
    )
    pack: Place | None = Field(
        default=None, description="source that `mvssl pack` knows, packed under root on first use"
    )
    train: Place | list[Place] = Field(default=[], description="shards to train on: paths, globs, {000..012} braces")
    val: Place | list[Place] = Field(
        default=[], description="held-out shards: training checks itself on them, evaluate tests on them"
    )
    columns: dict[str, Column] = Field(default={}, description="the columns that views are made from")
    label: Column | None = Field(default=None, description="the column that evaluate predicts")
    batch_size: Count = Field(default=128, description="samples per optimizer step over all processes")
    workers: int = Field(default=2, ge=0, le=256, description="loader processes per training process")
    missing: Literal["drop", "mask", "error"] = Field(
        default="drop", description="what happens to a sample that lacks a column"
    )
    max_bad: float = Field(default=0.001, ge=0, le=1, description="share of undecodable samples at which the run stops")

    @property
    def folder(self) -> Path:
        """The folder that shard patterns are relative to, with ~ expanded. Raise `RecipeError`."""
        return home_path(self.root or os.environ.get("MVSSL_DATA") or "data")


class ViewConfig(Config):
    """One view: the column that it is drawn from. Further keys are the options of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, allow_inf_nan=False)

    source: str = Field(alias="from", description="column of the batch")
    name: str = Field(default="image", description="image, signal, logmel, vector, or package.module:Class")
    augment: str | None = Field(default=None, description="preset of options: dim, amdim, cmc, mib, simclr, crop_flip")
    geometry: str | None = Field(default=None, description="view whose crop, flip and warp this view repeats")
    count: int = Field(default=1, ge=1, le=64, description="independent draws of this view: NAME_0, NAME_1, ...")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the view's class."""
        return dict(self.model_extra or {})


class EncoderConfig(Config):
    """A timm model by name, for one or several views."""

    name: str = Field(description="timm model name, one of mvssl's own included")
    taps: list[int] | None = Field(default=None, description="which intermediate maps to keep; default all")
    pretrained: bool = Field(default=False, description="start from timm's weights (downloads)")
    init_from: Place | None = Field(
        default=None, description="start from a run, an export folder or a safetensors file"
    )
    options: dict[str, Any] = Field(default={}, description="keyword arguments of timm.create_model")


class ObjectiveConfig(Config):
    """One term of the loss: the name of its class and its weight. Further keys are the options of its class."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, allow_inf_nan=False)

    name: str = Field(description="a built-in objective, such as cmc, or package.module:Class")
    weight: float = Field(default=1.0, ge=0, description="factor of this term in the loss")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the objective's class."""
        return dict(self.model_extra or {})


class Optim(Config):
    """The optimizer and its learning rate over the run."""

    name: Literal["adamw"] = Field(default="adamw", description="the optimizer")
    lr: float = Field(default=1e-3, gt=0, description="learning rate after the warm-up")
    weight_decay: float = Field(default=0.05, ge=0, description="not applied to norms, biases and other vectors")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="decay of AdamW's two moving averages")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="course of the learning rate after the warm-up"
    )
    warmup: int = Field(default=0, ge=0, le=10**12, description="steps of linear warm-up")
    final: float = Field(default=0.0, ge=0, le=1, description="share of lr left at the end of the cosine")
    clip: float | None = Field(default=None, gt=0, description="largest gradient norm")


class Train(Config):
    """How long, how precise, and where to."""

    epochs: float | None = Field(default=None, gt=0, le=1e9, description="length in passes over train, or give steps")
    steps: int | None = Field(default=None, gt=0, le=10**12, description="length in optimizer steps, or give epochs")
    precision: Literal["fp32", "tf32", "bf16"] = Field(default="fp32", description="fp32 is IEEE; bf16 has TF32 beside")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of weights, sample order and every draw")
    save_every: Count = Field(default=500, description="steps between checkpoints; the last step is always saved")
    keep: int = Field(default=2, ge=2, description="checkpoints kept")
    log_every: Count = Field(default=20, description="steps between lines of metrics.jsonl")
    check_every: int | None = Field(default=None, ge=0, description="steps between checks; null: save_every; 0: none")
    check_samples: Count = Field(default=1024, description="held-out samples that a check looks at")
    hang_timeout: float = Field(default=1800, gt=0, le=1e7, description="seconds without progress that are a hang")
    trackers: list[str] = Field(default=["tensorboard"], description="accelerate trackers")
    joint_bn: bool = Field(default=True, description="views that share an encoder and a shape pass as one batch")
    out: Annotated[str, AfterValidator(expand_home)] = Field(min_length=1, description="run folder")
    then: list[Literal["evaluate", "export", "views", "curves", "report"]] = Field(
        default=[], description="what to do after the last step"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Finetune(Config):
    """How the fine-tuning probe trains the encoder."""

    epochs: float = Field(default=10, gt=0, le=1e9, description="passes over train, at least 200 steps")
    shots: list[Count] = Field(default=[], description="labels per class; none given: all labels of train")
    augment: bool = Field(default=True, description="with the recipe's augmentation, or on clean views")


class Evaluate(Config):
    """Defaults of `mvssl evaluate`; the command line overrides them."""

    probes: list[str] = Field(
        default=["fewlabel", "knn", "linear"],
        min_length=1,
        description="names in mvssl.evaluation.probes, or package.module:Class",
    )
    layer: str = Field(
        default="vector",
        description="vector, head or head:OBJECTIVE (what it compares), or a map's number",
    )
    shots: list[Count] = Field(default=[1, 2, 5, 10, 100], description="labels per class of the few-label probe")
    draws: Count = Field(default=20, description="random label sets per number of shots")
    segments: Column | None = Field(default=None, description="the class of every pixel, for the dense probe")
    ignore: int | None = Field(default=None, description="class of pixels that the dense probe leaves out")
    finetune: Finetune = Field(default_factory=Finetune, description="length and labels of the fine-tuning probe")
    options: dict[str, dict[str, Any]] = Field(default={}, description="keywords of a probe, such as knn: {k: 200}")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="of the encoder's passes, as in train")


def expand(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables without short forms: one encoder table means all views, one objective table a list of one."""
    full = dict(tables)
    encoder, views = full.get("encoder"), full.get("views")
    if isinstance(encoder, Mapping) and "name" in encoder and isinstance(views, Mapping):
        full["encoder"] = {",".join(map(str, views)): encoder}
    if isinstance(full.get("objective"), Mapping):
        full["objective"] = [full["objective"]]
    return full


class Recipe(Config):
    """All tables of a run.

    In a file `encoder` may be one table for all views, and `objective` one table for a single term. Here `encoder` is
    always a dict by view or group of views ("left,right"), and `objective` a list.
    """

    data: Data
    views: dict[str, ViewConfig] = Field(min_length=1)
    encoder: dict[str, EncoderConfig]
    objective: list[ObjectiveConfig] = Field(min_length=1)
    optim: Optim = Field(default_factory=Optim)
    train: Train
    evaluate: Evaluate = Field(default_factory=Evaluate)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, tables: Any) -> Any:
        return expand(tables) if isinstance(tables, Mapping) else tables
