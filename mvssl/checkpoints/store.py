"""Checkpoints that are whole or not there: written aside, hashed, renamed; the newest that verifies is loaded.

    RUN/checkpoints/step-00000500/model.safetensors       weights and buffers
                                  optimizer.safetensors   moments and step counts by parameter name
                                  state.json              step, seed, data fingerprint, counts
                                  recipe.yaml             what the run was trained with
                                  ...                     further tensors that a run keeps, by file name
                                  MANIFEST.json           sha256 and size of each of these
    RUN/checkpoints/held_out.json                         held-out losses that were measured after the step was saved

A checkpoint that verifies is never written again, so no kill can take away what was saved. The state of a step that was
checked on held-out samples holds their loss; the best of them is never deleted. Folders of other names are left alone.
There is no loader, sampler or generator state: position and draws are functions of the step.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mvssl.checkpoints.contents import (
    MANIFEST,
    RECIPE,
    REPLACED,
    STEP,
    digest,
    faults,
    load_model,
    load_state,
    load_tensors,
    manifest_text,
    moments,
    restore,
    step_of,
)
from mvssl.errors import DataError, StorageError
from mvssl.files import (
    hash_bytes,
    name_beside,
    read_json,
    remove,
    sync_folder,
    write_durably,
    write_file,
    written_beside,
)
from mvssl.text import warn

__all__ = [
    "MANIFEST", "RECIPE", "at_step", "best", "candidates", "digest", "faults", "load_model", "load_state",
    "load_tensors", "newest", "record_held_out", "restore", "save_checkpoint", "step_of", "would_be_best",
]  # fmt: skip
HELD_OUT = "held_out.json"
_WRITING, _DELETING = ".writing-", ".deleting-"  # how folders begin that a kill may leave behind
_DEBRIS = (f"{_WRITING}*", f"{_DELETING}*")


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    more: Mapping[str, dict[str, Tensor]] | None = None,
    recipe: str = "",
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep` and the best.

    `more` are further tensors by file name, `recipe` is the text of the recipe. A checkpoint of the step that verifies
    already stays as it is. Raises `StorageError`, leaving the earlier checkpoints and no debris.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    if final.is_dir() and not faults(final):
        return final
    files = {
        "model.safetensors": save(_contiguous(model.state_dict())),
        "optimizer.safetensors": save(_contiguous(moments(model, optimizer))),
        "state.json": json.dumps({"step": step, **state}, indent=1).encode(),
        **({RECIPE: recipe.encode()} if recipe else {}),
        **{name: save(_contiguous(tensors)) for name, tensors in (more or {}).items()},
    }
    manifest = {name: {"sha256": hash_bytes(body), "bytes": len(body)} for name, body in files.items()}
    files[MANIFEST] = manifest_text(manifest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(run)
        for debris in (path for pattern in _DEBRIS for path in folder.glob(pattern)):
            remove(debris)
        with written_beside(final, _WRITING) as beside:
            beside.mkdir()
            for name, body in files.items():
                write_durably(beside / name, body)
            sync_folder(beside)
            if final.exists():  # it is damaged, or it would have been kept
                _remove(final)
        sync_folder(folder)
    except OSError as error:
        why = f"checkpoint {final} could not be written: {error.strerror}; earlier ones are intact"
        raise StorageError(why) from error
    # What is newer than this step did not verify, or the run would have gone on from there: it must not count as kept.
    damaged = [other for other in candidates(run) if step_of(other) > step]
    whole = [other for other in candidates(run) if other not in damaged]
    first = next(iter(_ranked(whole)), None)
    for old in [*damaged, *(other for other in whole[keep:] if other != first)]:
        _remove(old)
    return final


def newest(run: Path) -> Path | None:
    """The newest checkpoint whose files are as their manifest says, or None where there is none at all.

    Warns of each newer one that is passed over. Raises `DataError` when there are checkpoints but none verifies,
    `StorageError` when one cannot be read for the moment.
    """
    found = candidates(run)
    passed_over: list[str] = []
    for checkpoint in found:
        wrong = faults(checkpoint)
        if not wrong:
            for text in passed_over:
                warn(f"{text}; passed over for {checkpoint.name} of {run}")
            return checkpoint
        passed_over.append(wrong[0])
    if found:
        raise DataError(f"no checkpoint in {run} verifies: " + "; ".join(passed_over))
    return None


def candidates(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first, whether they verify or not."""
    found: dict[int, Path] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in (run / "checkpoints").iterdir():
            match = STEP.fullmatch(entry.name) or REPLACED.fullmatch(entry.name)
            if match and (int(match[1]) not in found or STEP.fullmatch(entry.name)):
                found[int(match[1])] = entry
    return [found[step] for step in sorted(found, reverse=True)]


def best(run: Path) -> Path:
    """The checkpoint with the lowest held-out loss among those that verify. Raises `DataError` if none has one.

    Losses are compared where they are of the same samples under the same schedules as the newest.
    """
    for found in _ranked(candidates(run)):
        wrong = faults(found)
        if not wrong:
            return found
        warn(f"{wrong[0]}; passed over for the next best checkpoint of {run}")
    raise DataError(
        f"no checkpoint in {run} has a held-out loss: checks measure it where the recipe names data.val; "
        "take --checkpoint last"
    )


def at_step(run: Path, step: int) -> Path:
    """The checkpoint of a step. Raises `DataError` where it is not there or damaged, and says which are."""
    found = next((other for other in candidates(run) if step_of(other) == step), None)
    if found is None:
        there = ", ".join(str(step_of(other)) for other in reversed(candidates(run)))
        raise DataError(f"{run} has no checkpoint of step {step} (there are: {there or 'none'})")
    if wrong := faults(found):
        raise DataError("; ".join(wrong))
    return found


def would_be_best(run: Path, held_out: dict[str, Any]) -> bool:
    """Whether no checkpoint of the run has as low a held-out loss, measured on the same."""
    losses = [other["loss"] for other in map(_held_out, candidates(run)) if other and other["of"] == held_out["of"]]
    return all(held_out["loss"] < loss for loss in losses)


def _ranked(checkpoints: list[Path]) -> list[Path]:
    """Those with a held-out loss that compares with the newest one's, the lowest first, of equals the earlier."""
    known = [(found, held_out) for found in checkpoints if (held_out := _held_out(found))]
    alike = [(held_out["loss"], found.name, found) for found, held_out in known if held_out["of"] == known[0][1]["of"]]
    return [found for _, _, found in sorted(alike)]


def record_held_out(run: Path, step: int, held_out: dict[str, Any]) -> None:
    """Keep a held-out loss that was measured after the checkpoint of its step was written. Raises `StorageError`."""
    known = _recorded(run)
    write_file(run / "checkpoints" / HELD_OUT, json.dumps({**known, str(step): held_out}, indent=1))


def _recorded(run: Path) -> dict[str, Any]:
    known = read_json(run / "checkpoints" / HELD_OUT)
    return known if isinstance(known, dict) else {}


def _held_out(checkpoint: Path) -> dict[str, Any] | None:
    """The held-out loss of a checkpoint and what it was measured on."""
    try:
        held_out = load_state(checkpoint).get("held_out")
    except (OSError, DataError):
        return None
    held_out = held_out or _recorded(checkpoint.parent.parent).get(str(step_of(checkpoint)))
    fits = isinstance(held_out, dict) and {"loss", "of"} <= held_out.keys() and isinstance(held_out["loss"], float)
    return held_out if fits else None


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it loses its name first, so that a kill leaves no half of one."""
    gone = name_beside(checkpoint, _DELETING)
    with contextlib.suppress(OSError):
        checkpoint.rename(gone)
        remove(gone)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, one copy each: safetensors refuses tensors that share memory."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
