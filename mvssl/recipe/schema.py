"""The tables of a recipe: every key with its type, limits, default and description.

in   plain dicts
out  a frozen `Recipe` with valid values; `loading` checks that they fit each other

Options of views and objectives have no tables here: the signature of a class is its schema (see `options`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from mvssl.files import expand_home, home_path
from mvssl.recipe.options import Strict

Count = Annotated[int, Field(gt=0, le=10**9)]
Size = Count | tuple[Count, Count]
Share = Annotated[float, Field(ge=0, lt=1)]


def _check_home(path: str) -> str:
    """Return the path unchanged. Raise `ValueError` if its ~ cannot be expanded."""
    expand_home(path)
    return path


Place = Annotated[str, AfterValidator(_check_home)]  # a path, a pattern or a source; ~ is expanded when it is used


class Config(Strict):
    """A part of a recipe. Unknown keys are errors, and values do not change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Column(Config):
    """One column of the batch: the field of a sample that it is decoded from, and its shape."""

    field: str
    """field of the sample: jpg, rgb.jpg, cls, json; "jpg;png" reads the first that exists"""
    size: Size | None = None
    """[height, width] of every image; other sizes are resized and cropped at the centre"""
    mode: Literal["rgb", "gray", "mono"] | None = None
    """rgb: three channels; gray: one channel; mono: one channel of sound"""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """how `size` resizes; use nearest for masks, whose numbers stand for classes"""
    channels_last: bool = False
    """true: arrays are stored as [t, c] or [h, w, c] and are transposed; set it if the shape could mean both"""
    nan: float | None = None
    """value that replaces NaN, such as the nodata of a view; by default NaN makes a bad sample"""
    rate: Count | None = None
    """samples per second; wav files of another rate are resampled to it"""
    length: Count | None = None
    """number of samples [t]; longer signals are cut at the end, shorter ones are padded with zeros"""
    path: str | None = None
    """path inside a json field, with dots; or the name of an array in an npz"""
    names: list[str] | None = Field(default=None, min_length=1)
    """names of the classes in the order of their numbers, if the field holds names"""
    classes: Count | None = None
    """number of classes, if the field holds a list of class numbers; it becomes a multi-hot vector"""


class Data(Config):
    """Where samples come from and how many make a batch."""

    root: Place | None = None
    """folder of the shards; default $MVSSL_DATA, else ./data"""
    pack: Place | None = None
    """a source of `mvssl pack`, which is packed to a folder under root on first use"""
    train: Place | list[Place] = Field(default=[])
    """shards to train on: paths, globs, or ranges such as {000..012}"""
    val: Place | list[Place] = Field(default=[])
    """held-out shards, for checks during training and for evaluate"""
    columns: dict[str, Column] = Field(default={})
    """columns of a batch, by name; views are made from them"""
    label: Column | None = None
    """the labels, which evaluate predicts"""
    batch_size: Count = 128
    """samples per optimizer step over all processes"""
    workers: int = Field(default=2, ge=0, le=256)
    """loader processes per training process"""
    missing: Literal["drop", "mask", "error"] = "drop"
    """samples without one of the columns: leave out, keep and mask, or stop with an error"""
    max_bad: float = Field(default=0.001, ge=0, le=1)
    """largest share of samples that cannot be decoded; above it the run stops"""

    @property
    def folder(self) -> Path:
        """The folder that shard patterns are relative to, with ~ expanded. Raise `RecipeError`."""
        return home_path(self.root or os.environ.get("MVSSL_DATA") or "data")


class ViewConfig(Config):
    """One view: its column and its class. Further keys are the options of the class."""

    model_config = ConfigDict(extra="allow")

    source: str = Field(alias="from")
    """column that the view is made from"""
    name: str = "image"
    """image, signal, logmel, vector, or package.module:Class"""
    augment: str | None = None
    """preset of options: dim, amdim, amdim_stl10, amdim_imagenet, cmc, mib, simclr, crop_flip"""
    geometry: str | None = None
    """another view, whose crop, flip and warp this view uses too"""
    count: int = Field(default=1, ge=1, le=64)
    """number of independent draws of this view: NAME_0, NAME_1, ..."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the view's class."""
        return dict(self.model_extra or {})


class EncoderConfig(Config):
    """A timm model by name, for one or several views."""

    name: str
    """name of a model of timm, or of mvssl's own networks"""
    taps: list[int] | None = None
    """numbers of the intermediate maps to keep; default all"""
    pretrained: bool = False
    """start from the weights of timm, which are downloaded"""
    init_from: Place | None = None
    """start from the weights of a run, an export folder, or a file of safetensors or torch.save"""
    options: dict[str, Any] = Field(default={})
    """keyword arguments of timm.create_model"""


class ObjectiveConfig(Config):
    """One term of the loss: its class and its weight. Further keys are the options of the class."""

    model_config = ConfigDict(extra="allow")

    name: str
    """a built-in objective, such as cmc, or package.module:Class"""
    weight: float = Field(default=1.0, ge=0)
    """factor of this term in the loss"""

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the objective's class."""
        return dict(self.model_extra or {})


class Optim(Config):
    """The optimizer and its learning rate over the run."""

    name: Literal["adamw"] = "adamw"
    """the optimizer"""
    lr: float = Field(default=1e-3, gt=0)
    """learning rate after the warm-up"""
    weight_decay: float = Field(default=0.05, ge=0)
    """weight decay of matrices and kernels; norms and biases have none"""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """decay rates of the two moving averages of AdamW"""
    eps: float = Field(default=1e-8, gt=0)
    """epsilon of AdamW"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """how the learning rate changes after the warm-up"""
    warmup: int = Field(default=0, ge=0, le=10**12)
    """steps of linear warm-up"""
    final: float = Field(default=0.0, ge=0, le=1)
    """learning rate at the end of the cosine, as a share of lr"""
    clip: float | None = Field(default=None, gt=0)
    """largest norm of the gradient; larger ones are scaled down"""


class Train(Config):
    """Length, precision, checkpoints, checks and run folder of the training."""

    epochs: float | None = Field(default=None, gt=0, le=1e9)
    """length of the run in passes over the training data; give epochs or steps"""
    steps: int | None = Field(default=None, gt=0, le=10**12)
    """length of the run in optimizer steps; give steps or epochs"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """fp32: IEEE float32; tf32: TF32 matrix products; bf16: autocast to bfloat16, all else as tf32"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the initial weights, the sample order and all random draws"""
    save_every: Count = 500
    """steps between checkpoints; the last step is always saved"""
    keep: int = Field(default=2, ge=2)
    """number of newest checkpoints to keep; the best one is kept too"""
    log_every: Count = 20
    """steps between two lines in metrics.jsonl"""
    check_every: int | None = Field(default=None, ge=0)
    """steps between checks on held-out data; null: as save_every; 0: no checks"""
    check_samples: Count = 1024
    """number of held-out samples that a check uses"""
    hang_timeout: float = Field(default=1800, gt=0, le=1e7)
    """seconds without progress after which the run stops as hanging"""
    trackers: list[str] = Field(default=["tensorboard"])
    """trackers of accelerate that get the metrics"""
    joint_bn: bool = True
    """true: views that share an encoder and a shape pass it as one batch, with common batch norm statistics"""
    out: Annotated[str, AfterValidator(expand_home)] = Field(min_length=1)
    """the run folder"""
    then: list[Literal["evaluate", "export", "views", "curves", "report"]] = Field(default=[])
    """commands to run after the last step"""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class Finetune(Config):
    """How the fine-tuning probe trains the encoder."""

    epochs: float = Field(default=10, gt=0, le=1e9)
    """passes over the training data; at least 200 steps"""
    shots: list[Count] = Field(default=[])
    """numbers of labels per class; empty: all labels"""
    augment: bool = True
    """true: augment as the recipe does; false: clean views"""


class Evaluate(Config):
    """Defaults of `mvssl evaluate`; the command line overrides them."""

    probes: list[str] = Field(default=["fewlabel", "knn", "linear"], min_length=1)
    """names of probes, or package.module:Class"""
    layer: str = "vector"
    """vector; head or head:OBJECTIVE, the embedding that the objective compares; or the number of a map"""
    shots: list[Count] = Field(default=[1, 2, 5, 10, 100])
    """numbers of labels per class, for the few-label probe"""
    draws: Count = 20
    """number of random sets of labels for each number of shots"""
    segments: Column | None = None
    """column with the class of every pixel, for the dense probe"""
    ignore: int | None = None
    """number of a class whose pixels the dense probe leaves out"""
    finetune: Finetune = Field(default_factory=Finetune)
    """length and labels of the fine-tuning probe"""
    options: dict[str, dict[str, Any]] = Field(default={})
    """options of probes by name, such as knn: {k: 200}"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the encoder, as in train"""


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
