"""The processes, device, precision and trackers of a run, as accelerate sets them up.

in   train.precision, train.trackers, train.hang_timeout; the environment that a launcher set
out  an `Accelerator`; a `RecipeError` if the launch, the precision or a tracker is not possible here
"""

import contextlib
import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic
from mvssl.errors import RecipeError
from mvssl.recipe import Recipe
from mvssl.recipe.messages import nearest

ALL = "all"  # accelerate's name for all installed trackers
PACKAGES = {"comet_ml": "comet-ml", "aim": "'aim<4'"}  # trackers whose package has another name


def make_accelerator(recipe: Recipe, cpu: bool = False) -> Accelerator:
    """Return the processes, the device, the precision and the trackers of a recipe. Raises `RecipeError`.

    With `cpu`, no other device is used.
    """
    refuse_trackers(recipe.train.trackers)
    launched = os.environ.get("WORLD_SIZE", "1")
    if not launched.isdigit() or (int(launched) > 1 and "MASTER_ADDR" not in os.environ):
        raise RecipeError(f"WORLD_SIZE={launched} without MASTER_ADDR is no launch: use accelerate launch, or unset it")
    launched = int(launched)
    AcceleratorState._reset_state()  # an earlier run of this Python process may have had another precision
    try:
        accelerator = Accelerator(
            # accelerate's launcher does not pass use_cpu on to its workers, and without it they do not find each other
            cpu=cpu or (launched > 1 and not torch.accelerator.is_available()),
            mixed_precision="bf16" if recipe.train.precision == "bf16" else "no",
            log_with=list(recipe.train.trackers) or None,
            project_dir=recipe.train.out,
            kwargs_handlers=[
                # Running statistics are equal on all processes, and rank 0's must not overwrite those of the others.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                # longer than the watchdog waits, which can name the process that hangs
                InitProcessGroupKwargs(timeout=timedelta(seconds=max(1800, 3 * recipe.train.hang_timeout))),
            ],
        )
    except ValueError as error:
        raise RecipeError(f"train.precision: {recipe.train.precision} is not possible here: {error}") from None
    if launched != accelerator.num_processes:
        raise RecipeError(
            f"{launched} processes were launched, but this one sees {accelerator.num_processes}; "
            "use one of the files in launch/ (for CPUs launch/cpu_2.yaml)"
        )
    collectives.cpu_group()  # now, because the processes meet through the launcher, which may end before them
    return accelerator


def is_launched_alone(world: int) -> bool:
    """Return whether accelerate's launcher was asked for several processes but started one, as with --cpu."""
    # the launcher then sets an address for the processes, but no WORLD_SIZE
    launched = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    return world == 1 and launched and "WORLD_SIZE" not in os.environ


def arithmetic_of(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    """Set the precision of the device for training; cuDNN is not tuned if the number of rows changes by step."""
    return arithmetic(recipe.train.precision, tune=recipe.data.missing != "mask")


def refuse_trackers(names: Iterable[str]) -> None:
    """Raise `RecipeError` for a tracker that accelerate does not know or that is not installed."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in (*LOGGER_TYPE_TO_CLASS, ALL):
            raise RecipeError(f"train.trackers: no tracker {name!r}{nearest(name, [*LOGGER_TYPE_TO_CLASS, ALL])}")
        if name not in installed and (name != ALL or not installed):
            package = "tensorboard" if name == ALL else PACKAGES.get(name, name)
            have = ", ".join(installed) or "none"
            raise RecipeError(
                f"train.trackers: {name} is not installed; `pip install {package}` or name another (installed: {have})"
            )


def start_trackers(accelerator: Accelerator) -> None:
    """Start the trackers; every process must call it. Raises `RecipeError` if one fails, as without a login."""
    try:
        accelerator.init_trackers("trackers")
    except Exception as error:  # each package raises its own classes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RecipeError(
            f"train.trackers: a tracker could not be started: {reason}; leave it out of the list, or mend it"
        ) from error
