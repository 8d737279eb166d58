"""Write checkpoints completely or not at all, and find the one to load.

    RUN/checkpoints/step-00000500/model.safetensors       weights and buffers
                                  optimizer.safetensors   moments and step counts by parameter name
                                  state.json              step, data fingerprint, counts
                                  recipe.yaml             the recipe of the run
                                  ...                     further files of tensors, by name
                                  MANIFEST.json           sha256 and size of each of these
    RUN/checkpoints/held_out.json                         held-out losses that were measured after the step was saved

A checkpoint is written to a temporary folder, the manifest last, and renamed. One that verifies is never written again,
so no kill can destroy it. If held-out samples were checked at a step, its state holds their loss, and the checkpoint
with the best loss is never deleted. Folders of other names stay as they are. There is no state of loader, sampler or
generator: position and draws are functions of the step.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvssl.checkpoints.reading import (
    MANIFEST,
    RECIPE,
    REPLACED,
    STEP,
    ManifestEntry,
    digest,
    find_damage,
    load_into,
    load_model,
    load_state,
    manifest_text,
    optimizer_tensors,
    step_in_name,
)
from mvssl.checkpoints.state import HeldOutLoss, State
from mvssl.checkpoints.tensor_file import TensorFile
from mvssl.errors import DataError, StorageError
from mvssl.files import (
    read_json,
    remove,
    remove_at_once,
    sync_folder,
    write_all,
    write_durably,
    write_file,
    written_beside,
)
from mvssl.text import warn

__all__ = [
    "MANIFEST",
    "RECIPE",
    "HeldOutLoss",
    "State",
    "at_step",
    "best",
    "digest",
    "find_damage",
    "list_checkpoints",
    "load_into",
    "load_model",
    "load_state",
    "newest",
    "record_held_out",
    "save_checkpoint",
    "step_in_name",
    "tensor_files",
    "would_be_best",
    "write_checkpoint",
]  # fmt: skip
HELD_OUT = "held_out.json"
_WRITING, _DELETING = ".writing-", ".deleting-"  # prefixes of folders that a kill may leave behind
_DEBRIS = (f"{_WRITING}*", f"{_DELETING}*")
_CHUNK = 1 << 22  # bytes that are hashed and written at once, so that they are still in the processor's cache


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
    """Write the checkpoint of `step` from the live tensors, and return its folder; see `write_checkpoint`.

    `more` are further tensors by file name, `recipe` is the text of the recipe.
    """
    files = {name: file.parts() for name, file in tensor_files(model, optimizer, more).items()}
    return write_checkpoint(run, step, files, state, keep, recipe)


def tensor_files(
    model: nn.Module, optimizer: torch.optim.Optimizer, more: Mapping[str, dict[str, Tensor]] | None = None
) -> dict[str, TensorFile]:
    """Return the files of tensors of a checkpoint, by name. They refer to the live tensors."""
    files = {"model.safetensors": model.state_dict(), "optimizer.safetensors": optimizer_tensors(model, optimizer)}
    return {name: TensorFile(tensors) for name, tensors in {**files, **(more or {})}.items()}


def write_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Iterable[memoryview]], state: dict[str, Any], keep: int, recipe: str
) -> Path:
    """Write the checkpoint of `step` and return its folder. `tensors` are the parts of each file of tensors, by name.

    Then delete older ones, but keep the newest `keep` checkpoints and the best. An intact checkpoint of this step is
    not written again.

    Raise `StorageError` if writing fails. Earlier checkpoints are kept, and temporary files are removed.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    if final.is_dir() and not find_damage(final):
        return final
    text = json.dumps({"step": step, **state}, indent=1)
    texts = {"state.json": text.encode(), **({RECIPE: recipe.encode()} if recipe else {})}
    files = {**tensors, **{name: [memoryview(body)] for name, body in texts.items()}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(run)
        for debris in (path for pattern in _DEBRIS for path in folder.glob(pattern)):
            remove(debris)
        with written_beside(final, _WRITING) as beside:
            beside.mkdir()
            entries = {name: _write_hashed(beside / name, parts) for name, parts in files.items()}
            write_durably(beside / MANIFEST, manifest_text(entries))
            sync_folder(beside)
            if final.exists():  # a damaged one; one that verifies was returned above
                remove_at_once(final, _DELETING)
        sync_folder(folder)
    except OSError as error:
        why = f"checkpoint {final} could not be written: {error.strerror}; earlier ones are intact"
        raise StorageError(why) from error
    # Newer checkpoints did not verify, or the run would have continued from there. They must not count as kept.
    damaged = [other for other in list_checkpoints(run) if step_in_name(other) > step]
    intact = [other for other in list_checkpoints(run) if other not in damaged]
    first = next(iter(_ranked(intact)), None)
    for old in [*damaged, *(other for other in intact[keep:] if other != first)]:
        remove_at_once(old, _DELETING)
    return final


def _write_hashed(file: Path, parts: Iterable[memoryview]) -> ManifestEntry:
    """Write a file durably, and return the hash and the size of what was written. Raise `OSError`."""
    hashed, size = hashlib.sha256(), 0
    with file.open("wb", buffering=0) as opened:
        for part in parts:
            for begin in range(0, len(part), _CHUNK):
                chunk = part[begin : begin + _CHUNK]
                hashed.update(chunk)  # no other thread waits meanwhile: Python's lock is released
                size += write_all(opened, chunk)
        os.fsync(opened.fileno())
    return ManifestEntry(sha256=hashed.hexdigest(), bytes=size)


def newest(run: Path) -> Path | None:
    """Return the newest checkpoint that verifies, or None if there is no checkpoint.

    Print a warning for each newer one that is damaged. Raise `DataError` if there are checkpoints but none verifies,
    and `StorageError` if one cannot be read at the moment.
    """
    found = list_checkpoints(run)
    skipped: list[str] = []
    for checkpoint in found:
        wrong = find_damage(checkpoint)
        if not wrong:
            for text in skipped:
                warn(f"{text}; using {checkpoint.name} of {run} instead")
            return checkpoint
        skipped.append(wrong[0])
    if found:
        raise DataError(f"no checkpoint in {run} verifies: " + "; ".join(skipped))
    return None


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, verified or not, the newest first."""
    found: dict[int, Path] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in (run / "checkpoints").iterdir():
            match = STEP.fullmatch(entry.name) or REPLACED.fullmatch(entry.name)
            if match and (int(match[1]) not in found or STEP.fullmatch(entry.name)):
                found[int(match[1])] = entry
    return [found[step] for step in sorted(found, reverse=True)]


def best(run: Path) -> Path:
    """Return the checkpoint with the lowest held-out loss that verifies. Raise `DataError` if none has such a loss.

    Only losses on the same samples under the same schedules as the newest one are compared.
    """
    for found in _ranked(list_checkpoints(run)):
        wrong = find_damage(found)
        if not wrong:
            return found
        warn(f"{wrong[0]}; trying the next best checkpoint of {run}")
    raise DataError(
        f"no checkpoint in {run} has a held-out loss: checks measure it if the recipe has data.val; "
        "use --checkpoint last"
    )


def at_step(run: Path, step: int) -> Path:
    """Return the checkpoint of a step. Raise a `DataError` that lists the others if it is missing or damaged."""
    found = next((other for other in list_checkpoints(run) if step_in_name(other) == step), None)
    if found is None:
        there = ", ".join(str(step_in_name(other)) for other in reversed(list_checkpoints(run)))
        raise DataError(f"{run} has no checkpoint of step {step} (there are: {there or 'none'})")
    if wrong := find_damage(found):
        raise DataError("; ".join(wrong))
    return found


def would_be_best(run: Path, held_out: HeldOutLoss) -> bool:
    """Return whether the loss is below those of all checkpoints that were measured on the same samples."""
    others = map(_held_out, list_checkpoints(run))
    return all(held_out.loss < other.loss for other in others if other and other.of == held_out.of)


def _ranked(checkpoints: list[Path]) -> list[Path]:
    """Return the checkpoints with a held-out loss, the lowest first, of equal losses the earlier step first.

    Losses that were measured on other samples than the newest one are left out.
    """
    known = [(found, held_out) for found in checkpoints if (held_out := _held_out(found))]
    alike = [(held_out.loss, found.name, found) for found, held_out in known if held_out.of == known[0][1].of]
    return [found for _, _, found in sorted(alike)]


def record_held_out(run: Path, step: int, held_out: HeldOutLoss) -> None:
    """Write a held-out loss that was measured after the checkpoint of its step was saved. Raise `StorageError`."""
    known = _recorded(run)
    write_file(run / "checkpoints" / HELD_OUT, json.dumps({**known, str(step): held_out.model_dump()}, indent=1))


def _recorded(run: Path) -> dict[str, Any]:
    known = read_json(run / "checkpoints" / HELD_OUT)
    return known if isinstance(known, dict) else {}


def _held_out(checkpoint: Path) -> HeldOutLoss | None:
    """Return the held-out loss of a checkpoint with what it was measured on, or None."""
    try:
        held_out = load_state(checkpoint).held_out
    except (OSError, DataError):
        return None
    return held_out or HeldOutLoss.parse(_recorded(checkpoint.parent.parent).get(str(step_in_name(checkpoint))))
