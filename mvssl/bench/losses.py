"""Contrastive losses beside the shortest dense forms in torch, and beside lightly's: time and peak memory.

in   the sizes; embeddings are random
out  rows for `cmc` at growing numbers of samples, for AMDIM, and for DIM with every estimator

A call is a forward and a backward pass, from embeddings to their gradients, in the same memory layout. Heads are left
out of all ways. Ours are the objectives themselves, with their metrics. Memory is what a way holds beyond the
embeddings and their gradients, which every way must hold.
"""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvssl.bench.comparison import ROUNDS, Row, Way, build_row, compare, finish_comparison, one_thread, time_block
from mvssl.bench.memory import measure_operations, measure_peak
from mvssl.bench.rivals.lightly import import_lightly
from mvssl.bench.timing import CPU, check_json_file
from mvssl.encoders import Features, Widths
from mvssl.objectives import Context, Objective, build_objective, find_objective
from mvssl.objectives.estimators import EstimatorName
from mvssl.objectives.scoring.heads import NoHead, PerView
from mvssl.random import Draws

Loss = Callable[..., Tensor]  # of the embeddings

SIZES = (1024, 4096, 8192, 16384, 32768, 65536)
LARGEST_DENSE = 16384  # samples; with more the dense form needs 20 GB
LARGEST_LIGHTLY = 8192  # its matrix has twice as many rows and columns
WIDTH, TEMPERATURE = 128, 0.07
OPERATIONS = {"aten::addmm_": "the matrix product", "aten::exp": "the exponential"}
# DIM's loss from the scores of positive pairs and those of negative pairs; `smile` is trained by `jsd`
DENSE: dict[str, Loss] = {
    "jsd": lambda own, others: F.softplus(-own).mean() + F.softplus(others).mean() - 2 * math.log(2),
    "gan": lambda own, others: F.softplus(-own).mean() + F.softplus(others).mean(),
    "kl": lambda own, others: (others - 1).exp().mean() - own.mean(),
    "reverse_kl": lambda own, others: (-own).exp().mean() + (others - 1).mean(),
    "hellinger": lambda own, others: torch.expm1(-own).mean() + torch.expm1(others).mean(),
    "chi2": lambda own, others: (others + others.square() / 4).mean() - own.mean(),
    "wasserstein": lambda own, others: others.mean() - own.mean(),
    "dv": lambda own, others: others.flatten().logsumexp(0) - math.log(others.numel()) - own.mean(),
    "infonce": lambda own, others: -F.logsigmoid(own - others.flatten(1).logsumexp(1)[:, None]).mean(),
}
DENSE |= {"nwj": DENSE["kl"], "smile": DENSE["jsd"], "mine": DENSE["dv"]}  # `mine` equals `dv` on a repeated batch


class LossCase(NamedTuple):
    """Losses of the same embeddings: ours first, then others. All but lightly's have the same value and gradients."""

    losses: dict[str, Loss]
    embeddings: tuple[Tensor, ...]

    def build_ways(self) -> dict[str, Way]:
        """Return a forward and backward pass of each loss, which returns the gradients."""
        given = [x.detach().requires_grad_() for x in self.embeddings]

        def build(loss: Loss) -> Way:
            def work() -> list[Tensor | None]:
                loss(*given).backward()
                gradients = [x.grad for x in given]
                for x in given:
                    x.grad = None
                return gradients

            return work

        return {name: build(loss) for name, loss in self.losses.items()}


def bench_losses(
    *, largest: int = 16384, rounds: int = ROUNDS, device: torch.device = CPU, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Compare the losses, `cmc` with up to `largest` samples; print a table with times and memory.

    Without lightly its column is left out. Raise `OutputError` if `json_file` cannot be written.
    """
    check_json_file(json_file)
    clock = "cpu" if device.type == "cpu" else "wall"
    with one_thread():
        rows = [compare_cmc(n, rounds, device) for n in SIZES if n <= largest]
        rows += [compare_amdim(rounds, device)]
        rows += [compare_dim(name, rounds, device) for name in get_args(EstimatorName)]
        n = min(largest, 4096)
        spent = measure_operations(build_cmc_case(n, device).build_ways()["ours"])
    slowest = max(spent, key=spent.__getitem__)
    share = spent[slowest] / sum(spent.values())
    bottleneck = f"{OPERATIONS.get(slowest, slowest)} takes {share:.0%} of cmc with {n:,} samples"
    return finish_comparison("losses", rows, bottleneck=bottleneck, clock=clock, device=device, json_file=json_file)


def compare_cmc(n: int, rounds: int = ROUNDS, device: torch.device = CPU) -> Row:
    """Compare `cmc` of two views and `n` samples with the dense form and lightly's, as far as their memory allows."""
    return _compare(f"cmc, {n:,} samples, {WIDTH} wide", build_cmc_case(n, device), rounds, device)


def compare_amdim(
    rounds: int = ROUNDS, device: torch.device = CPU, *, n: int = 128, side: int = 7, width: int = 1024
) -> Row:
    """Compare one scale of AMDIM, at the paper's sizes by default, with `einsum`."""
    case = build_amdim_case(n, side, width, device)
    return _compare(f"amdim, {n} samples, {side**2} places, {width} wide", case, rounds, device)


def compare_dim(
    estimator: str, rounds: int = ROUNDS, device: torch.device = CPU, *, n: int = 64, side: int = 8, width: int = 2048
) -> Row:
    """Compare DIM's local scores, at the paper's sizes by default, with `einsum`."""
    case = build_dim_case(estimator, n, side, width, device)
    return _compare(f"dim {estimator}, {n} samples, {side**2} places, {width} wide", case, rounds, device)


def build_cmc_case(n: int, device: torch.device = CPU) -> LossCase:
    """Return the losses of random vectors [n, 128] of two views."""
    objective = _build("cmc", dict.fromkeys("ab", Widths((), WIDTH)), embed=WIDTH, temperature=TEMPERATURE)
    _take_heads_off(objective, "project", nn.Identity())

    def ours(a: Tensor, b: Tensor) -> Tensor:
        return _call(objective, {"a": Features((), a), "b": Features((), b)})

    losses: dict[str, Loss] = {"ours": ours}
    if n <= LARGEST_DENSE:
        losses["dense torch"] = dense_cmc
    if n <= LARGEST_LIGHTLY and importlib.util.find_spec("lightly"):
        losses["lightly"] = import_lightly("loss", "NTXentLoss")(temperature=TEMPERATURE)
    return LossCase(losses, (torch.randn(n, WIDTH, device=device), torch.randn(n, WIDTH, device=device)))


def dense_cmc(a: Tensor, b: Tensor) -> Tensor:
    """Return the loss of `cmc` in the shortest way."""
    scores, own = F.normalize(a) @ F.normalize(b).T / TEMPERATURE, torch.arange(len(a), device=a.device)
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)


def build_amdim_case(n: int, side: int, width: int, device: torch.device = CPU) -> LossCase:
    """Return the losses of random vectors [n, width] and maps [n, width, side, side] of two views."""
    widths = dict.fromkeys("ab", Widths(((width, side, side),), width))
    objective = _build("amdim", widths, embed=width, scales=[["vector", 0]])
    _take_heads_off(objective, "heads.0", NoHead())

    def ours(vector_a: Tensor, vector_b: Tensor, map_a: Tensor, map_b: Tensor) -> Tensor:
        return _call(objective, {"a": Features((map_a,), vector_a), "b": Features((map_b,), vector_b)})

    vectors = [torch.randn(n, width, device=device) for _ in range(2)]
    maps = [_draw_map(n, width, side, device) for _ in range(2)]
    return LossCase({"ours": ours, "einsum": dense_amdim}, (*vectors, *maps))


def dense_amdim(vector_a: Tensor, vector_b: Tensor, map_a: Tensor, map_b: Tensor) -> Tensor:
    """Return the loss of one scale of AMDIM in the shortest way: soft clip at 20, penalty of 0.05."""
    losses = []
    for vector, fmap in ((vector_a, map_b), (vector_b, map_a)):
        scores = torch.einsum("id,jdq->ijq", vector, fmap.flatten(2)) / math.sqrt(vector.shape[1])
        losses.append(DENSE["infonce"](*_split(20 * torch.tanh(scores / 20))) + 0.05 * scores.square().mean())
    return torch.stack(losses).mean()


def build_dim_case(estimator: str, n: int, side: int, width: int, device: torch.device = CPU) -> LossCase:
    """Return the losses of random vectors [n, width] and maps [n, width, side, side]."""
    widths = {"image": Widths(((width, side, side),), width)}
    objective = _build("dim", widths, estimator=estimator, units=width, layer=0)
    _take_heads_off(objective, "scores.local.of_image.candidate", NoHead())

    def ours(vector: Tensor, fmap: Tensor) -> Tensor:
        return _call(objective, {"image": Features((fmap,), vector)})

    def einsum(vector: Tensor, fmap: Tensor) -> Tensor:
        return DENSE[estimator](*_split(torch.einsum("id,jdq->ijq", vector, fmap.flatten(2))))

    vectors = torch.randn(n, width, device=device) / math.sqrt(width)
    return LossCase({"ours": ours, "einsum": einsum}, (vectors, _draw_map(n, width, side, device)))


def _split(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of positive pairs, [n, l], and of negative pairs, [n, (n - 1) * l]."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores[own], scores[~own].view(len(scores), -1)


def _build(name: str, widths: dict[str, Widths], **options: Any) -> Objective:
    return build_objective(find_objective(name, "bench losses"), options, "bench losses", widths)


def _take_heads_off(objective: Objective, name: str, head: nn.Module) -> None:
    """Put `head` in the place of a head, or of the heads of all views."""
    found = objective.get_submodule(name)
    for place in [f"{name}.{view}" for view in found._modules] if isinstance(found, PerView) else [name]:
        objective.set_submodule(place, head)


def _draw_map(n: int, width: int, side: int, device: torch.device) -> Tensor:
    return torch.randn(n, width, side, side, device=device).contiguous(memory_format=torch.channels_last)


def _call(objective: Objective, features: dict[str, Features]) -> Tensor:
    vector = next(iter(features.values())).vector
    index = torch.arange(len(vector))
    return objective(features, Context(0, index, Draws(0, index, vector.device)))[0]


def _compare(what: str, case: LossCase, rounds: int, device: torch.device) -> Row:
    clock, ways, gradients = (
        "cpu" if device.type == "cpu" else "wall",
        case.build_ways(),
        sum(x.nbytes for x in case.embeddings),
    )
    memory = {name: measure_peak(way, device) - gradients for name, way in ways.items()}
    if len(ways) > 1:
        return compare(what, ways, rounds=rounds, clock=clock, device=device, memory=memory)
    return build_row(what, {"ours": [time_block(ways["ours"], 1, clock, device)]}, memory=memory)
