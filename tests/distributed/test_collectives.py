"""N processes are one: value, metrics and gradient on two real processes against one with the same global batch.

Every objective with its options runs through MultiView, DistributedDataParallel and batch norm over processes, in
float64. Both processes hold four of the eight samples; where rows lack a view, unequally many.
"""

import math

import pytest
import torch
from gloo_processes import processes
from small_features import WIDTHS, SmallEncoder, context
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import convert_batchnorm
from mvssl.model import MultiView, Term
from mvssl.objectives import AMDIM, CMC, DIM, MIB, InfoMax, Predict
from mvssl.objectives.estimators import ESTIMATORS, IGNORE, NEGATIVE, POSITIVE
from mvssl.objectives.mixture import Mixture

N = 8
SOME = {"b": torch.tensor([1, 0, 0, 0, 1, 1, 0, 1]).bool()}  # one row here, three there
MORE = SOME | {"a": torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()}
THERE = {"b": torch.tensor([0, 0, 0, 0, 1, 1, 1, 0]).bool()}  # one process has none
ONE = {"b": torch.arange(N) == 5}  # one row in all
NOWHERE = {"b": torch.zeros(N, dtype=torch.bool)}
SMALL = {"units": 8}
LATENT = {"latent": 6, "units": 16}

# name: (terms as (weight, class, options), views, present)
CASES = {
    **{f"dim {name}": ([(1.0, DIM, {"estimator": name, **SMALL})], "a", {}) for name in (*ESTIMATORS, "mine")},
    "dim of two views": ([(1.0, DIM, SMALL)], "ab", {}),
    "dim with shared heads": ([(1.0, DIM, {"share_heads": True, **SMALL})], "ab", SOME),
    "dim mask value": ([(1.0, DIM, {"estimator": "infonce", "mask_value": -10.0, **SMALL})], "a", {}),
    "dim global": ([(1.0, DIM, {"local_weight": 0.5, "global_weight": 1.0, **SMALL})], "ab", {}),
    "dim prior": ([(1.0, DIM, {"prior_weight": 0.1, **SMALL})], "ab", {}),
    "dim prior alone": ([(1.0, DIM, {"local_weight": 0.0, "prior_weight": 1.0})], "a", {}),
    "dim concat": ([(1.0, DIM, {"critic": "concat", "global_weight": 1.0, "estimator": "dv"})], "a", {}),
    "dim subsampled": ([(1.0, DIM, {"subsample": 6, "estimator": "infonce", **SMALL})], "a", {}),
    "dim penalty": ([(1.0, DIM, {"vector_penalty": 0.3, **SMALL})], "ab", SOME),
    "dim absent jsd": ([(1.0, DIM, {"prior_weight": 0.3, "global_weight": 0.2, **SMALL})], "ab", SOME),
    "dim absent infonce": ([(1.0, DIM, {"estimator": "infonce", "global_weight": 0.2, **SMALL})], "ab", THERE),
    "dim absent dv": ([(1.0, DIM, {"estimator": "dv", **SMALL})], "ab", THERE),
    "dim without samples": ([(1.0, DIM, {"estimator": "infonce", "prior_weight": 0.3, **SMALL})], "ab", NOWHERE),
    "dim of one row": ([(1.0, DIM, {"global_weight": 0.2, "prior_weight": 0.3, **SMALL})], "ab", ONE),
    "amdim of one row": ([(1.0, AMDIM, {"embed": 10})], "ab", ONE),
    "cmc of one row": ([(1.0, CMC, {"embed": 8})], "abc", ONE),
    "mib of one row": ([(1.0, MIB, LATENT)], "ab", ONE),
    "amdim": ([(1.0, AMDIM, {"embed": 12})], "ab", {}),
    "amdim projected": ([(1.0, AMDIM, {"embed": 10, "share_heads": True})], "ab", {}),
    "amdim options": ([(1.0, AMDIM, {"embed": 8, "scales": ((1, 0), ("vector", -1)), "soft_clip": None})], "ab", {}),
    "amdim mixture": ([(1.0, AMDIM, {"embed": 12, "mixture": Mixture(components=3)})], "ab", {}),
    "amdim mixture absent": (
        [(1.0, AMDIM, {"embed": 10, "mixture": Mixture(components=2, sharpness=3.0, entropy_weight=0.2)})],
        "abc",
        MORE,
    ),
    "amdim mixture here": ([(1.0, AMDIM, {"embed": 10, "mixture": Mixture(components=3)})], "ab", THERE),
    "amdim mixture without samples": ([(1.0, AMDIM, {"embed": 10, "mixture": Mixture(components=3)})], "ab", NOWHERE),
    "amdim mixture of one row": ([(1.0, AMDIM, {"embed": 10, "mixture": Mixture(components=3)})], "ab", ONE),
    "amdim three views": ([(1.0, AMDIM, {"embed": 12})], "abc", {}),
    "amdim absent": ([(1.0, AMDIM, {"embed": 10})], "ab", MORE),
    "amdim absent here": ([(1.0, AMDIM, {"embed": 10, "share_heads": True})], "ab", THERE),
    "amdim without samples": ([(1.0, AMDIM, {"embed": 10})], "ab", NOWHERE),
    "cmc": ([(1.0, CMC, {"embed": 8})], "ab", {}),
    "cmc full": ([(1.0, CMC, {"embed": 8, "head": "mlp"})], "abc", {}),
    "cmc core": ([(1.0, CMC, {"embed": 8, "pairs": "c"})], "abc", {}),
    "cmc absent": ([(1.0, CMC, {"embed": 8})], "abc", MORE),
    "cmc absent here": ([(1.0, CMC, {"embed": 8, "share_heads": True})], "ab", THERE),
    "cmc without samples": ([(1.0, CMC, {"embed": 8})], "abc", NOWHERE),
    **{
        f"mib {estimator} {negatives} {kl}": (
            [(1.0, MIB, {"estimator": estimator, "negatives": negatives, "kl": kl, "beta_end": 0, **LATENT})],
            "ab",
            present,
        )
        for estimator, negatives, kl, present in (
            ("jsd", "roll", "sampled", {}),
            ("jsd", "roll", "closed", {}),
            ("jsd", "all", "sampled", MORE),
            ("nwj", "roll", "closed", SOME),
            ("infonce", "roll", "sampled", MORE),
            ("infonce", "all", "closed", THERE),
            ("dv", "roll", "closed", THERE),
            ("mine", "roll", "closed", MORE),
            ("smile", "all", "sampled", SOME),
        )
    },
    "mib separable": (
        [(1.0, MIB, {"critic": "separable", "negatives": "all", "estimator": "infonce", **LATENT})],
        "ab",
        {},
    ),
    "mib separable roll": ([(1.0, MIB, {"critic": "separable", **LATENT})], "ab", SOME),
    "mib three negatives": ([(1.0, MIB, {"negatives": 3, **LATENT})], "ab", SOME),
    "infomax": ([(1.0, InfoMax, {"negatives": 2, **LATENT})], "ab", {}),
    "infomax absent": ([(1.0, InfoMax, {"estimator": "mine", "critic": "separable", **LATENT})], "ab", THERE),
    "infomax without samples": ([(1.0, InfoMax, {"negatives": "all", **LATENT})], "ab", NOWHERE),
    "predict": ([(1.0, Predict, {"size": 4, **SMALL})], "abc", {}),
    "predict core": ([(1.0, Predict, {"distance": "l1", "pairs": "b", **SMALL})], "abc", SOME),
    "predict absent": ([(1.0, Predict, SMALL)], "ab", MORE),
    "predict here": ([(1.0, Predict, SMALL)], "ab", THERE),
    "predict of one row": ([(1.0, Predict, SMALL)], "ab", ONE),
    "predict without samples": ([(1.0, Predict, SMALL)], "ab", NOWHERE),
    "mib ramp": ([(1.0, MIB, {"beta_begin": 0, "beta_end": 10, **LATENT})], "ab", {}),
    "mib infomax": ([(1.0, MIB, {"beta": 0.0, **LATENT})], "abc", SOME),
    "mib headless": ([(1.0, MIB, {"head": False, **LATENT})], "ab", {}),
    "mib without samples": ([(1.0, MIB, LATENT)], "ab", NOWHERE),
    "mib without samples mine": ([(1.0, MIB, {"estimator": "mine", **LATENT})], "ab", NOWHERE),
    "weighted sum": (
        [
            (0.3, DIM, {"prior_weight": 0.2, "estimator": "infonce", **SMALL}),
            (2.0, CMC, {"embed": 8}),
            (0.4, Predict, SMALL),
            (1.0, AMDIM, {"embed": 12}),
            (0.7, MIB, {"beta_end": 0, **LATENT}),
        ],
        "abc",
        MORE,
    ),
}


def built(cls, views, options):
    """An objective on small encoders. One that reads views takes their size from map 0."""
    widths = WIDTHS._replace(maps=((3, 9, 9), *WIDTHS.maps)) if cls.reads_views else WIDTHS
    return cls(dict.fromkeys(views, widths), **options)


def run(terms, views, present):
    """Loss, metrics and gradients of a case, on however many processes there are."""
    torch.manual_seed(7)
    made = [Term(cls.__name__.lower(), weight, built(cls, views, options)) for weight, cls, options in terms]
    model = MultiView({view: SmallEncoder() for view in views}, made).double()
    full = {view: torch.randn(N, 3, 9, 9, dtype=torch.float64) for view in views}
    n = N // collectives.world_size()
    rows = collectives.own_rows(n)
    known = context(n, step=5, present={view: mask[rows] for view, mask in present.items()}, start=rows.start)
    wrapped = convert_batchnorm(model)
    if collectives.world_size() > 1:
        wrapped = DistributedDataParallel(wrapped)
    loss, metrics = wrapped({view: x[rows] for view, x in full.items()}, known)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return collectives.world_size(), loss.detach(), metrics, gradients


def run_all():
    return {name: run(*case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def two():
    return processes(run_all)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_value_and_gradient_of_one(two, name):
    world, loss, metrics, gradients = run(*CASES[name])
    assert world == 1
    for rank in two:
        two_world, two_loss, two_metrics, two_gradients = rank[name]
        assert two_world == 2
        assert_close(two_loss, loss, rtol=1e-9, atol=1e-9)
        assert_close(two_metrics, metrics, rtol=1e-9, atol=1e-9)
        assert gradients.keys() == two_gradients.keys()
        for parameter, gradient in gradients.items():
            assert gradient is not None, f"no gradient reaches {parameter}"
            assert gradient.isfinite().all(), parameter
            assert_close(two_gradients[parameter], gradient, rtol=1e-9, atol=1e-9)
    if all(mask.sum() > 1 for mask in CASES[name][2].values()):  # one row in all has no negative
        assert all(gradients[f"encoders.{view}.first.0.weight"].abs().sum() > 0 for view in CASES[name][1])


@pytest.mark.parametrize("name", [name for name, (*_, present) in CASES.items() if present is NOWHERE])
def test_a_view_without_samples_gets_gradient_zero(two, name):
    _, _, _, gradients = two[0][name]
    assert all((g == 0).all() for key, g in gradients.items() if key.startswith("encoders.b."))


def uneven(name, dtype):
    """An estimator on scores whose positives, negatives and ignored pairs are random."""
    torch.manual_seed(2)
    scores = torch.randn(N, N, 5, dtype=torch.float64).to(dtype)
    mask = torch.tensor([POSITIVE, NEGATIVE, IGNORE], dtype=torch.int8)[torch.randint(3, (N, N, 5))]
    mask[:, :4] = mask[:, :4].masked_fill(torch.rand(N, 4, 5) < 0.6, IGNORE)
    mask[2] = mask[2].clamp(min=IGNORE)  # an anchor without negatives anywhere
    mask[5, :4] = IGNORE  # an anchor that one process ignores
    own = collectives.own_rows(N // collectives.world_size())
    mine = scores[:, own].requires_grad_()
    value = ESTIMATORS[name](mine, mask[:, own])
    value.backward()
    return value.detach(), mine.grad / collectives.world_size(), own  # as DDP averages


def uneven_all():
    return {name: uneven(name, torch.float64) for name in ESTIMATORS}


@pytest.fixture(scope="module")
def two_uneven():
    return processes(uneven_all)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_on_unequal_counts_uses_all_pairs(two_uneven, name):
    value, gradient, _ = uneven(name, torch.float64)
    for rank in two_uneven:
        two_value, two_gradient, own = rank[name]
        assert_close(two_value, value, rtol=1e-12, atol=1e-12)
        assert_close(two_gradient, gradient[:, own], rtol=1e-12, atol=1e-12)


def primitives():
    """The result of each collective on this process, and the gradient of a weighted sum of it."""
    rank = collectives.rank()
    x = torch.tensor([1.0, 2.0], dtype=torch.float64) + 2 * rank
    x.requires_grad_()
    nothing = torch.full((2,), -math.inf, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)
    found = {
        "gather": ((collectives.gather(x) * weights).sum(), x),
        "total": ((collectives.sum_over_processes(x) * weights[:2]).sum(), x),
        "mean": (collectives.mean(x[: rank + 1].sum(), torch.tensor(rank + 1)), x),
        "logsumexp": ((collectives.logsumexp(x) * weights[:2]).sum(), x),
        "nothing": (collectives.logsumexp(nothing).exp().sum(), nothing),
    }
    return {name: (y.detach(), torch.autograd.grad(y, at)[0]) for name, (y, at) in found.items()}


def test_the_collectives_and_their_adjoints_by_hand():
    """Rank 0 holds [1, 2] and rank 1 [3, 4]; every process computes the value, so gradients are twice those of one."""
    zero, one = processes(primitives)
    e = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]  # shares of 1 and 3, and of 2 and 4
    by_hand = {
        "gather": (1 * 1 + 2 * 2 + 3 * 3 + 4 * 4, [1, 2], [3, 4]),
        "total": (4 * 1 + 6 * 2, [1, 2], [1, 2]),
        "mean": ((1 + 3 + 4) / 3, [1 / 3, 0], [1 / 3, 1 / 3]),
        "logsumexp": (
            math.log(math.e + math.e**3) + 2 * math.log(math.e**2 + math.e**4),
            [e[0], 2 * e[0]],
            [e[1], 2 * e[1]],
        ),
        "nothing": (0, [0, 0], [0, 0]),
    }
    for name, (value, *gradients) in by_hand.items():
        for found, gradient in zip((zero, one), gradients, strict=True):
            assert found[name][0].item() == pytest.approx(value), name
            assert (found[name][1] / 2).tolist() == pytest.approx(gradient), name


def test_on_one_process_collectives_are_the_identity():
    x = torch.randn(3)
    assert collectives.world_size() == 1
    assert collectives.gather(x) is collectives.sum_over_processes(x) is collectives.logsumexp(x) is x
    assert collectives.mean(torch.tensor(0.0), torch.tensor(0)).item() == 0


def test_safe_logsumexp_equals_torchs_with_zero_for_nan_gradients():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert_close(collectives.safe_logsumexp(x, (0, 1)), torch.logsumexp(x, (0, 1)))
    assert_close(collectives.safe_logsumexp(x + 1e4, 1), torch.logsumexp(x, 1) + 1e4)
    empty = torch.full((2, 3), -math.inf, requires_grad=True)
    value = collectives.safe_logsumexp(empty, 1)
    assert (value == -math.inf).all()
    value.exp().sum().backward()
    assert (empty.grad == 0).all()


def waited():
    """The groups of two waits for the main process, and their time limit."""
    groups = []
    own = torch.distributed.broadcast_object_list
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.distributed, "broadcast_object_list", lambda *a, group: groups.append(group) or own(*a, group=group)
        )
        made = [collectives.run_on_main(lambda n=n: n) for n in range(2)]
    options = groups[0]._get_backend(torch.device("cpu")).options
    return made, groups[0] is groups[1] is collectives.cpu_group(), groups[0].name(), options._timeout


def test_the_cpu_group_is_made_once_and_waits_for_hours():
    assert collectives.cpu_group() is None
    assert processes(waited) == [([0, 1], True, "gloo", collectives.PATIENCE)] * 2
