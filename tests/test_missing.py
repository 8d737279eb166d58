"""Samples that lack a sensor, from the shard to the gradient: an absent row is as if it had never been there.

`mask` on one process and on two against the same loss written out on the present rows; `drop` against shards that
never held the incomplete samples.
"""

import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import webdataset
from accelerate.state import AcceleratorState, PartialState
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from mvssl.data import loader, open_shards
from mvssl.distributed import collectives
from mvssl.random import Draws
from mvssl.recipe import parse_recipe
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer

BATCH, SAMPLES = 12, 30
SENSORS = {"arm": (2, 16), "leg": (3, 12), "heart": (5,)}
LATENT = 6


def lacks(key: int) -> set[str]:
    """Which sensors sample `key` lacks: some one, some two, and the first all three."""
    return {name for name, every in (("arm", 3), ("leg", 4), ("heart", 2)) if key % every == 0}


def write(folder, keys):
    numbers = np.random.default_rng(0)
    values = [{name: numbers.normal(size=shape).astype(np.float32) for name, shape in SENSORS.items()} for _ in keys]
    folder.mkdir()
    with webdataset.TarWriter(str(folder / "000.tar")) as writer:
        for key in keys:
            there = {f"{name}.npy": value for name, value in values[key].items() if name not in lacks(key)}
            writer.write({"__key__": f"{key:04d}", "cls": key, **there})


def tables(root, objective, missing="mask"):
    kinds = {"arm": "signal", "leg": "signal", "heart": "vector"}
    encoders = {"signal": {"name": "conv1d", "options": {"channels": [4, 6]}}}
    encoders["vector"] = {"name": "mlp", "options": {"widths": [8], "norm": True}}
    return {
        "data": {
            "root": str(root), "train": "shards/*.tar", "missing": missing, "batch_size": BATCH, "workers": 0,
            "columns": {name: {"field": f"{name}.npy"} for name in SENSORS},
        },
        "views": {name: {"from": name, "name": kind, "normalize": "none"} for name, kind in kinds.items()},
        "encoder": {name: encoders[kind] for name, kind in kinds.items()},
        "objective": objective,
        "train": {"steps": 1, "out": str(root / "run"), "trackers": []},
    }  # fmt: skip


CMC = {"name": "cmc", "embed": 5, "temperature": 0.2}
MIB = {"name": "mib", "latent": LATENT, "units": 8, "kl": "closed", "beta": 0.5, "beta_end": 0}
OBJECTIVES = {"cmc": CMC, "mib roll": MIB, "mib all": {**MIB, "negatives": "all"}}


def one_step(given):
    """This process's part of the first step: (world, batch, loss, gradients, the trainer)."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
    trainer = prepare_trainer(parse_recipe(given), make_accelerator(parse_recipe(given)))
    batch = next(iter(trainer.batches(0, 1)))
    seen = trainer.views(batch, 0)
    loss, _ = trainer.wrapped(seen, trainer.context(batch, 0))
    trainer.accelerator.backward(loss)
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    return collectives.world_size(), batch, loss.detach(), gradients, trainer


def one_step_of_two(given):
    rank, world = dist.get_rank(), dist.get_world_size()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    world, batch, loss, gradients, trainer = one_step(given)
    return world, batch.index, loss, gradients, dict(trainer.model.named_buffers())


def vectors(model, batch):
    """Each encoder on the rows that its sensor has, and on nothing else: [n, d], 0 where there is none."""
    found = {}
    for name in SENSORS:
        there = batch.present[name]
        vector = model.encoders[name].model(batch.columns[name][there])
        found[name] = torch.zeros(BATCH, vector.shape[1]).index_put((there.nonzero()[:, 0],), vector)
    return found


PAIRS = (("arm", "leg"), ("arm", "heart"), ("leg", "heart"))


def cmc_by_hand(model, batch):
    """Who has both sensors is told from everybody who has the other one."""
    objective, total = model.objective[0], 0.0
    z = {name: F.normalize(objective.project[name](v), dim=1) for name, v in vectors(model, batch).items()}
    for a, b in (*PAIRS, *((b, a) for a, b in PAIRS)):
        candidates = batch.present[b].nonzero()[:, 0]
        rows = (batch.present[a] & batch.present[b]).nonzero()[:, 0]
        own = torch.tensor([candidates.tolist().index(row) for row in rows.tolist()])
        total = total + F.cross_entropy(z[a][rows] @ z[b][candidates].T / 0.2, own)
    return total


def mib_by_hand(model, batch, negatives):
    objective, losses = model.objective[0], []
    posterior, code = {}, {}
    for name, vector in vectors(model, batch).items():
        mean, raw = objective.posterior_head[name](vector).chunk(2, dim=1)
        posterior[name] = Normal(mean, F.softplus(raw) + 1e-7, validate_args=False)
        draws = Draws(0, batch.position, scope="objective").within("mib").within(f"mib/{name}")
        code[name] = mean + posterior[name].scale * draws.normal("posterior", LATENT, dtype=torch.float32)
    for a, b in PAIRS:
        critic, here, there = objective.critic[f"{a}-{b}"], batch.present[a], batch.present[b]
        rows = (here & there).nonzero()[:, 0].tolist()
        wrong = [(i, j) for i in range(BATCH) for j in range(BATCH) if i != j and here[i] and there[j]]
        if negatives == "roll":
            wrong = [(i, j) for i, j in wrong if i == (j - 1) % BATCH]
        positive = torch.stack([critic.score_rows(code[a][i], code[b][i]) for i in rows])
        negative = torch.stack([critic.score_rows(code[a][i], code[b][j]) for i, j in wrong])
        jsd = F.softplus(-positive).mean() + F.softplus(negative).mean()
        p, q = (Normal(posterior[name].loc[rows], posterior[name].scale[rows]) for name in (a, b))
        skl = (kl_divergence(p, q) + kl_divergence(q, p)).sum(1).mean() / 2
        losses.append(jsd - 2 * math.log(2) + 0.5 * skl)
    return torch.stack(losses).mean()


def by_hand(name, trainer, batch):
    trainer.model.zero_grad()
    model, made = trainer.model, OBJECTIVES[name]
    loss = cmc_by_hand(model, batch) if name == "cmc" else mib_by_hand(model, batch, made.get("negatives", "roll"))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("missing")
    write(root / "shards", range(SAMPLES))
    return root


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_use_the_present_rows_only(root, processes, name):
    given = tables(root, OBJECTIVES[name])
    world, batch, loss, gradients, trainer = one_step(given)
    buffers = {key: buffer.clone() for key, buffer in trainer.model.named_buffers()}
    assert world == 1
    assert all(0 < batch.present[sensor].sum() < BATCH for sensor in SENSORS)
    parts = processes(one_step_of_two, given)
    assert torch.equal(torch.cat([index for _, index, *_ in parts]), batch.index)
    for two, _, two_loss, two_gradients, two_buffers in parts:
        assert two == 2
        assert_close(two_loss, loss)
        assert_close(two_gradients, gradients, rtol=1e-4, atol=1e-6)
        assert_close(two_buffers, buffers, rtol=1e-4, atol=1e-6)
    expected, expected_gradients = by_hand(name, trainer, batch)
    assert_close(loss, expected)
    assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-6)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_the_values_of_absent_rows_have_no_effect(root):
    given = tables(root, CMC)
    _, batch, loss, gradients, trainer = one_step(given)
    trainer.model.zero_grad()
    spoilt = {name: column.clone() for name, column in batch.columns.items()}
    for name, there in batch.present.items():
        spoilt[name][~there] = 1e6
    context = trainer.context(batch, 0)
    again, _ = trainer.model(trainer.views(batch._replace(columns=spoilt), 0), context)
    again.backward()
    assert_close(again.detach(), loss)
    assert_close({name: p.grad for name, p in trainer.model.named_parameters()}, gradients)


def test_dropped_samples_have_no_effect_on_the_order(root, tmp_path):
    complete = [key for key in range(SAMPLES) if not lacks(key)]
    write_kept(tmp_path / "kept", root / "shards" / "000.tar", complete)
    columns = parse_recipe(tables(root, CMC)).data.columns
    dropped = open_shards("shards/*.tar", root, columns, missing="drop")
    kept = open_shards("kept/*.tar", tmp_path, columns, missing="error")
    assert (len(dropped), dropped.dropped) == (len(complete), SAMPLES - len(complete))
    for ours, theirs in zip(
        *(loader(source, batch_size=4, seed=3, stop_step=6) for source in (dropped, kept)), strict=True
    ):
        assert ours.present == {}
        assert torch.equal(ours.index, theirs.index)
        assert_close(ours.columns, theirs.columns, rtol=0, atol=0)


def write_kept(folder, shard, keys):
    """The samples `keys` of a shard, their bytes as they are."""
    import tarfile

    folder.mkdir()
    wanted = {f"{key:04d}" for key in keys}
    with tarfile.open(shard) as source, tarfile.open(folder / "000.tar", "w", format=tarfile.USTAR_FORMAT) as target:
        for member in source.getmembers():
            if member.name.partition(".")[0] in wanted:
                target.addfile(member, source.extractfile(member))
