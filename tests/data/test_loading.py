import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from shard_making import image_bytes, pixels, replace_field, write_digits, write_tar

from mvssl.data import BadSample, Batch, DatasetSource, Order, loader, open_shards, sequential_loader
from mvssl.data.drawn import DrawnParameters
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column

COLUMNS = {"image": Column.model_validate({"field": "png"}), "label": Column.model_validate({"field": "cls"})}


@pytest.fixture
def source(tmp_path):
    write_digits(tmp_path, [7, 12, 3])
    return open_shards("*.tar", tmp_path, COLUMNS)


def equal(one: Batch, two: Batch) -> bool:
    return all(
        (a == b)
        if a is None or isinstance(a, list)
        else all(torch.equal(a[k], b[k]) for k in a)
        if isinstance(a, dict)
        else torch.equal(a, b)
        for a, b in zip(one, two, strict=True)
    )


def test_a_batch_has_the_samples_of_the_order(source):
    order = Order(22, seed=3)
    for step, batch in enumerate(loader(source, batch_size=4, seed=3, stop_step=8)):
        assert batch.position.tolist() == list(range(4 * step, 4 * step + 4))
        assert batch.index.tolist() == order(batch.position.numpy()).tolist()
        assert batch.columns["label"].tolist() == batch.index.tolist()
        assert batch.columns["image"].dtype == torch.uint8
        for row, i in enumerate(batch.index.tolist()):
            assert torch.equal(batch.columns["image"][row, 0], torch.from_numpy(pixels(i, 4, 4)))
        assert (batch.present, batch.bad) == ({}, [])


def test_no_sample_is_lost_or_repeated_in_any_epoch(source):
    batches = list(loader(source, batch_size=4, seed=0, stop_step=11))  # 44 samples: two epochs of 22
    seen = torch.cat([batch.index for batch in batches]).reshape(2, 22)
    assert (seen.sort(1).values == torch.arange(22)).all()
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_blocks_in_rank_order_are_the_batch_of_one_process(source, world):
    single = list(loader(source, batch_size=8, seed=1, stop_step=5))
    ranks = [loader(source, batch_size=8, seed=1, stop_step=5, rank=rank, world=world) for rank in range(world)]
    for batch, blocks in zip(single, zip(*ranks, strict=True), strict=True):
        joined = {name: torch.cat([block.columns[name] for block in blocks]) for name in batch.columns}
        position, index = (torch.cat([getattr(b, name) for b in blocks]) for name in ("position", "index"))
        assert equal(batch, Batch(joined, position, index, {}, []))


@pytest.mark.parametrize("start", [1, 3, 5, 6, 9])
def test_a_run_resumed_at_any_step_reads_the_same_batches(source, start):
    single = list(loader(source, batch_size=4, seed=0, stop_step=10))
    tail = list(loader(source, batch_size=4, seed=0, start_step=start, stop_step=10))
    assert len(tail) == 10 - start
    assert all(equal(one, two) for one, two in zip(single[start:], tail, strict=True))


def test_another_batch_size_sees_the_same_positions(source):
    one, two = (list(loader(source, batch_size=n, seed=0, stop_step=24 // n)) for n in (4, 8))
    assert torch.equal(torch.cat([b.index for b in one]), torch.cat([b.index for b in two]))


def test_worker_processes_change_nothing(source, tmp_path):
    replace_field(tmp_path / "000001.tar", "0011.png", b"garbage")
    source = open_shards("*.tar", tmp_path, COLUMNS)
    alone, helped = (list(loader(source, batch_size=6, seed=0, stop_step=6, workers=n)) for n in (0, 2))
    assert len(alone) == len(helped) == 6
    assert all(equal(one, two) for one, two in zip(alone, helped, strict=True))
    assert sum(len(batch.bad) for batch in helped) >= 1


def test_the_global_generator_is_not_moved(source):
    before = torch.get_rng_state()
    list(loader(source, batch_size=4, seed=0, stop_step=2))
    list(sequential_loader(source, batch_size=4, workers=1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_bad_sample_is_replaced_and_recorded(tmp_path):
    write_digits(tmp_path, [20, 20])
    before = list(loader(open_shards("*.tar", tmp_path, COLUMNS), batch_size=8, seed=0, stop_step=5))
    injected = {3, 11, 27}
    for i in injected:
        replace_field(tmp_path / f"{i // 20:06d}.tar", f"{i:04d}.png", b"\x89PNG garbage")
    source = open_shards("*.tar", tmp_path, COLUMNS)
    after = list(loader(source, batch_size=8, seed=0, stop_step=5))  # one epoch
    records = [record for batch in after for record in batch.bad]
    assert {record.key for record in records} == {f"{i:04d}" for i in injected}
    assert len(records) == 3
    order = Order(40, seed=0)
    for record in records:
        assert order(np.array([record.position]))[0] == int(record.key)
        assert (record.shard, record.column) == (source.shard(int(record.key)), "image")
        assert "png" in record.reason
    index, was = (torch.cat([b.index for b in batches]) for batches in (after, before))
    label, label_was = (torch.cat([b.columns["label"] for b in batches]) for batches in (after, before))
    replaced = {record.position: int(record.substitute) for record in records}
    for position in range(40):
        assert index[position] == label[position] == replaced.get(position, was[position])
    assert torch.equal(was, label_was)
    assert not injected & set(index.tolist())


def test_the_substitute_is_the_same_on_any_number_of_processes(tmp_path):
    write_digits(tmp_path, [24])
    replace_field(tmp_path / "000000.tar", "0005.png", b"")
    source = open_shards("*.tar", tmp_path, COLUMNS)
    single = [b for batch in loader(source, batch_size=8, seed=0, stop_step=3) for b in batch.bad]
    parts = [
        b
        for r in (0, 1)
        for batch in loader(source, batch_size=8, seed=0, stop_step=3, rank=r, world=2)
        for b in batch.bad
    ]
    assert single == parts
    assert len(single) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_substitutes_end_the_run_with_one_line_in_the_main_process(tmp_path, workers):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", b"no" if i else image_bytes(pixels(i))) for i in range(200)])
    source = open_shards("x.tar", tmp_path, {"image": COLUMNS["image"]})
    with pytest.raises(DataError) as error:
        list(loader(source, batch_size=100, seed=0, stop_step=1, workers=workers))
    assert type(error.value) is DataError
    assert "\n" not in str(error.value)
    assert all(message in str(error.value) for message in ("x.tar", "image", "8 others", "mvssl verify"))


def test_absent_columns_are_masked_rows_of_zeros(tmp_path):
    members = []
    for i in range(8):
        members += [(f"{i}.cls", str(i).encode())] + ([(f"{i}.png", image_bytes(pixels(i)))] if i % 2 else [])
    write_tar(tmp_path / "x.tar", members)
    source = open_shards("x.tar", tmp_path, COLUMNS, missing="mask")
    (batch,) = loader(source, batch_size=8, seed=0, stop_step=1)
    assert list(batch.present) == ["image"]
    assert batch.present["image"].tolist() == [i % 2 == 1 for i in batch.index.tolist()]
    assert not batch.columns["image"][~batch.present["image"]].any()
    assert batch.columns["image"][batch.present["image"]].any(-1).any(-1).all()


def test_a_batch_that_the_processes_do_not_divide_is_refused(source):
    with pytest.raises(RecipeError, match=r"data\.batch_size: 10 .* 4 processes.* 8 or 12.*1, 2, 5, 10"):
        loader(source, batch_size=10, seed=0, stop_step=1, world=4)
    with pytest.raises(RecipeError, match=r"multiple of 4, such as 4,"):
        loader(source, batch_size=2, seed=0, stop_step=1, world=4)


def test_fewer_samples_than_a_batch_are_refused_with_both_numbers(source):
    with pytest.raises(DataError, match=r"22 samples.*batch of 64.*data\.batch_size"):
        loader(source, batch_size=64, seed=0, stop_step=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_sequential_gives_every_sample_once_in_order(source, workers):
    batches = sequential_loader(source, batch_size=8, workers=workers)
    found = list(batches)
    assert [len(batch.index) for batch in found] == [8, 8, 6]
    assert len(batches) == 3
    assert torch.cat([batch.position for batch in found]).tolist() == list(range(22))
    assert torch.cat([batch.columns["label"] for batch in found]).tolist() == list(range(22))
    assert [b.position.tolist() for b in sequential_loader(source, batch_size=4, start=3, stop=9)] == [
        [3, 4, 5, 6],
        [7, 8],
    ]


def test_sequential_leaves_bad_samples_out_and_records_them(tmp_path):
    write_digits(tmp_path, [11])
    for i in (2, 4, 5, 6, 7, 8, 9, 10):
        replace_field(tmp_path / "000000.tar", f"{i:04d}.png", b"no")
    found = list(sequential_loader(open_shards("*.tar", tmp_path, COLUMNS), batch_size=4))
    assert [batch.index.tolist() for batch in found] == [[0, 1, 3]]  # batches in which all is bad are not given out
    assert [record.key for batch in found for record in batch.bad] == [f"{i:04d}" for i in (2, 4, 5, 6, 7, 8, 9, 10)]
    assert {record.substitute for record in found[0].bad} == {""}
    with pytest.raises(DataError, match="none of 7 samples"):
        list(sequential_loader(open_shards("*.tar", tmp_path, COLUMNS), batch_size=4, start=4))


def test_a_batch_can_be_pinned_and_moved_as_a_named_tuple():
    from torch.utils.data._utils.pin_memory import pin_memory

    class Pinned:
        pinned = False

        def pin_memory(self):
            self.pinned = True
            return self

    drawn = replace(DrawnParameters.pack(0, torch.arange(1), {}), block=Pinned())  # pyright: ignore
    fake = Batch({"image": Pinned()}, Pinned(), Pinned(), {}, [BadSample(1, "k", "s", "c", "r", "t")], drawn)  # pyright: ignore
    pinned = pin_memory(fake)
    assert isinstance(pinned, Batch)
    assert isinstance(pinned.bad[0], BadSample)
    assert pinned.columns["image"].pinned
    assert pinned.position.pinned
    assert pinned.drawn.block.pinned


SCRIPT = """
import os, signal, sys, time
import torch
from mvssl.data import DatasetSource, loader

class Numbers:
    def __len__(self): return 64
    def __getitem__(self, i): return {"x": float(i)}

if __name__ == "__main__":
    batches = iter(loader(DatasetSource(Numbers()), batch_size=8, seed=0, stop_step=1000, workers=2))
    for _ in range(2):
        next(batches)  # one from each worker, so both have started
    listed = [open(f"/proc/self/task/{thread}/children").read() for thread in os.listdir("/proc/self/task")]
    children = [int(child) for line in listed for child in line.split()]
    assert len(children) >= 2
    for child in children:
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGINT)
    for _ in range(20):
        next(batches)
    print("survived", flush=True)
    sys.exit(143)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")
def test_workers_outlive_signals_and_end_with_their_process(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (128 + signal.SIGTERM, "survived"), run.stderr


class Failing:
    def __len__(self):
        return 30

    def __getitem__(self, i):
        if i == 7:
            raise OSError("disk on fire")
        return {"x": float(i)}


def test_an_exception_of_a_dataset_is_a_bad_sample():
    batches = list(loader(Failing(), batch_size=10, seed=0, stop_step=3))
    (record,) = [record for batch in batches for record in batch.bad]
    assert (record.key, record.reason) == ("7", "OSError: disk on fire")
    assert len(DatasetSource(Failing())) == 30
