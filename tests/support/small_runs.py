"""A run small enough for tests: 40 images of 8x8 pixels in three uneven shards, a tiny network, a batch of 8."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from mvssl.recipe import Recipe, parse_recipe

BATCH = 8


def write_shards(
    folder: Path, counts: tuple[int, ...] = (20, 13, 7), size: int = 8, without_depth: int = 0, unlabelled: int = 0
) -> Path:
    """Shards of random colour images `png` with labels `cls` and a depth-like `depth.png`; returns the folder.

    The first `without_depth` samples have no depth, the first `unlabelled` no label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    key = 0
    for shard, count in enumerate(counts):
        with webdataset.TarWriter(str(folder / f"{shard:06d}.tar")) as writer:
            for _ in range(count):
                label = key % 4
                image = numbers.integers(0, 128, (size, size, 3)) + 40 * label % 128
                depth = numbers.integers(0, 255, (size, size))
                sample = {"__key__": f"{key:08d}", "png": _png(image)}
                if key >= unlabelled:
                    sample["cls"] = str(label).encode()
                if key >= without_depth:
                    sample["depth.png"] = _png(depth)
                writer.write(sample)
                key += 1
    return folder


def rename_samples(shard: Path, out: Path, prefix: str) -> None:
    """The shard again, with `prefix` before every key."""
    with tarfile.open(shard) as source, tarfile.open(out, "w") as target:
        for member in source.getmembers():
            member.name = prefix + member.name
            target.addfile(member, source.extractfile(member))


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(file, "png")
    return file.getvalue()


def tables(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as plain tables; `changes` replace whole tables or, as `train__steps=3`, single values."""
    whole: dict[str, Any] = {
        "data": {
            "root": str(root),
            "train": "train/*.tar",
            "val": "train/*.tar",
            "columns": {"image": {"field": "png"}},
            "label": {"field": "cls"},
            "batch_size": BATCH,
            "workers": 0,
        },
        "views": {"image": {"from": "image", "count": 2, "augment": "crop_flip"}},
        "encoder": {"name": "dim_conv32", "options": {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}},
        "objective": {"name": "cmc", "embed": 8},
        "optim": {"lr": 1e-3, "warmup": 2},
        "train": {"steps": 6, "save_every": 3, "check_every": 0, "log_every": 2, "out": str(out), "trackers": []},
    }
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if key:
            whole[table][key] = value
        else:
            whole[table] = value
    return whole


def recipe(root: Path, out: Path, **changes: Any) -> Recipe:
    """The same, checked."""
    return parse_recipe(tables(root, out, **changes))


def weights(run: Path, step: int, name: str = "model") -> dict[str, Any]:
    """The tensors of a checkpoint."""
    return load_file(run / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


def train_as_rank(given: dict[str, Any]) -> tuple[int, str]:
    """For `processes`: train under the environment that a launcher would set; (world size, error or '')."""
    import torch.distributed as dist
    from accelerate.state import AcceleratorState, PartialState

    from mvssl import train
    from mvssl.errors import MvsslError

    AcceleratorState._reset_state()
    PartialState._reset_state()
    rank, world = dist.get_rank(), dist.get_world_size()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    try:
        train(parse_recipe(given))
    except MvsslError as error:
        return world, f"{error.code}: {error}"
    return world, ""


def train_on(processes: Callable, world: int, given: dict[str, Any]) -> None:
    """Train on `world` processes; one is this one."""
    if world == 1:
        from mvssl import train

        train(parse_recipe(given))
    else:
        assert processes(train_as_rank, given, world=world) == [(world, "")] * world


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl that training wrote."""
    return [line for line in _lines(run) if "lr" in line]


def checks(run: Path) -> dict[int, dict[str, float]]:
    """The lines of metrics.jsonl that held-out checks wrote, by step, without what differs from run to run."""
    return {
        line["step"]: {k: v for k, v in line.items() if k != "val/seconds"} for line in _lines(run) if "lr" not in line
    }


def _lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


CONTRAST = {"name": "cmc", "temperature": 0.1, "embed": 16}


def sensors(n: int, seed: int, noise: float = 0.3) -> list[dict[str, torch.Tensor]]:
    """Two sensors that see the same 12 numbers, each through a mixing of its own and under noise."""
    mixing = torch.Generator().manual_seed(0)
    one, two = (torch.randn(12, 24, generator=mixing) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    scene, *noises = (torch.randn(n, size, generator=generator) for size in (12, 24, 24))
    a, b = scene @ one + noise * noises[0], scene @ two + noise * noises[1]
    return [{"a": a[i].numpy(), "b": b[i].numpy()} for i in range(n)]
