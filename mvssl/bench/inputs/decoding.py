"""Decoding JPEGs and reading them from shards, beside other libraries; the loop from JPEGs, beside decoded bytes.

in   nothing; photographs are made on the spot
out  samples per second of each way, and the speed of the loop from JPEGs divided by that from bytes, as tables and JSON
"""

import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from webdataset.compat import WebDataset

from mvssl.bench.comparison import Row, compare, finish_comparison, name_largest, one_thread
from mvssl.bench.speed import Stopwatch, run_loop, run_model
from mvssl.bench.synthetic import make_jpeg, make_photograph, write_repeated
from mvssl.bench.timing import FOREVER, check_json_file
from mvssl.data import open_shards
from mvssl.data.decoding.arrays import npy_bytes
from mvssl.data.decoding.fields import decode_field
from mvssl.recipe import Recipe, parse_recipe
from mvssl.recipe.schema import Column
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer
from mvssl.training.step import Trainer

SIZES = {"341x256": (256, 341), "32x32": (32, 32)}
_FILES, _SAMPLES, _BATCH = 32, 256, 32  # different photographs; samples in a shard; batch of the loop
COLUMN = Column(field="jpg")


def bench_decode(
    *, sizes: dict[str, tuple[int, int]] | None = None, steps: int = 4, workers: int = 2, rounds: int = 5,
    json_file: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return samples per second from JPEGs; `loop` has the row of the training loop at 224 pixels, wall time.

    The loop has two views, one wide layer and `workers` loader processes. Its `ratio` is its speed from JPEGs of
    341x256 pixels divided by its speed from arrays of the same pixels. Raise `OutputError`.
    """
    check_json_file(json_file)
    rows: list[Row] = []
    with one_thread():
        for name, (height, width) in (sizes or SIZES).items():
            files = [make_jpeg(seed, height, width) for seed in range(_FILES)]
            ways = {way: _all_of(decode, files) for way, decode in list_decoders().items()}
            rows.append(compare(f"decode {name}", ways, samples=len(files), rounds=rounds))
            rows.append(_compare_reading(f"read and decode {name}", files, rounds))
    loop, shares = _compare_loops(steps, workers, rounds)
    bottleneck = (
        f"of a sample from a shard, {name_largest(_shares_of_reading(rows))}; of the loop, {name_largest(shares)}"
    )
    return finish_comparison(
        "decode", rows, bottleneck=bottleneck, json_file=json_file, loop=loop, shares=shares, workers=workers
    )


def list_decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Return functions from the bytes of a JPEG to uint8 [c, h, w]: ours, then those of other libraries."""
    decoders: dict[str, Callable[[bytes], np.ndarray]] = {
        "ours": lambda data: decode_field(COLUMN, "jpg", data),
        "Pillow": lambda data: _channels_first(np.asarray(Image.open(io.BytesIO(data)))),
    }
    try:
        import imagecodecs

        decoders["imagecodecs"] = lambda data: _channels_first(imagecodecs.jpeg_decode(data))
    except ImportError:
        pass
    return decoders


def _channels_first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _all_of(decode: Callable[[bytes], np.ndarray], files: list[bytes]) -> Callable[[], object]:
    return lambda: [decode(data) for data in files]


def _compare_reading(what: str, files: list[bytes], rounds: int) -> Row:
    """Compare reading all samples of a shard in order with webdataset's pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        write_repeated(Path(folder), [{"jpg": data} for data in files], _SAMPLES)
        source = open_shards("*.tar", Path(folder), {"image": COLUMN}, progress=False)
        shard = str(source.paths[0])
        pipeline: Any = WebDataset([shard], shardshuffle=False).decode("rgb8")
        ways = {
            "ours": lambda: [source[i] for i in range(_SAMPLES)],
            "webdataset": lambda: list(pipeline),
        }
        return compare(what, ways, samples=_SAMPLES, rounds=rounds)


def _shares_of_reading(rows: list[Row]) -> dict[str, float]:
    decoding, reading = (1 / row.samples * row.seconds["ours"] for row in rows[:2])
    return {"the decoder": decoding, "reading and checking": max(0.0, reading - decoding)}


def _compare_loops(steps: int, workers: int, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the row of the loop from JPEGs and from arrays, beside the bare model, and the seconds of its parts."""
    height, width = SIZES["341x256"]
    pixels = [make_photograph(seed, height, width) for seed in range(_FILES)]
    contents = {
        "jpg": [make_jpeg(seed, height, width) for seed in range(_FILES)],
        "npy": [npy_bytes(_channels_first(image)) for image in pixels],
    }
    with tempfile.TemporaryDirectory() as name:
        folder, loops = Path(name), {}
        watch: Stopwatch | None = None
        trainer: Trainer | None = None
        for field, files in contents.items():
            (folder / field).mkdir()
            write_repeated(folder / field, [{field: data} for data in files], _SAMPLES)
            recipe = _build_recipe(folder, field, workers)
            trainer = prepare_trainer(recipe, make_accelerator(recipe))
            trainer.steps = FOREVER
            own = Stopwatch(trainer.device)
            watch = watch or own
            loops[field] = run_loop(trainer, folder, own)
        assert trainer is not None
        assert watch is not None
        ways = {
            "from JPEG": lambda: _take(loops["jpg"], steps),
            "from decoded bytes": lambda: _take(loops["npy"], steps),
        }
        row = compare("loop at 224", ways, samples=steps * _BATCH, rounds=rounds, clock="wall", device=trainer.device)
        bare = run_model(trainer)
        alone = compare(
            "model", {"model": lambda: _take(bare, steps)}, samples=steps * _BATCH, rounds=rounds, clock="wall"
        )
        watch.on = True
        _take(loops["jpg"], 2 * steps)
        watch.enter("")
        loop = {
            "samples_per_second": {way: row.samples / seconds for way, seconds in row.seconds.items()},
            "model_samples_per_second": alone.samples / alone.seconds["model"],
            "ratio": row.ratio,
            "ratio_spread": row.ratio_spread,
        }
        for each in loops.values():
            each.close()
    return loop, dict(watch.seconds)


def _take(loop: Iterator[Any], steps: int) -> None:
    for _ in itertools.islice(loop, steps):
        pass


def _build_recipe(folder: Path, field: str, workers: int) -> Recipe:
    return parse_recipe(
        {
            "data": {
                "root": str(folder), "train": f"{field}/*.tar", "columns": {"image": {"field": field}},
                "batch_size": _BATCH, "workers": workers,
            },
            "views": {"image": {"from": "image", "count": 2, "augment": "simclr", "blur_p": 0.0, "size": 224}},
            "encoder": {"name": "mlp", "options": {"widths": [256], "img_size": 224}},
            "objective": {"name": "cmc"},
            "train": {"steps": 1, "out": str(folder / "run"), "trackers": []},
        }
    )  # fmt: skip
