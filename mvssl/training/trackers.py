"""Check and start the trackers that a recipe names, before any data are read.

in   train.trackers
out  nothing; or a `RecipeError` that names the package to install
"""

from collections.abc import Iterable

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest

ALL = "all"  # accelerate's word for every tracker that is installed
PACKAGES = {"comet_ml": "comet-ml", "aim": "'aim<4'"}  # trackers whose package has another name


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
