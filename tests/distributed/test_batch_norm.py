"""Batch norm over processes is batch norm on one process: value, gradient, running statistics."""

import pytest
import timm
import torch
from gloo_processes import processes
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.testing import assert_close

from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import SyncBatchNorm, convert_batchnorm

SHAPES = {1: (6,), 2: (6, 3, 2), 3: (6, 2, 2, 3), 0: (6, 5)}  # dims of the batch norm -> per-sample shape
MAKERS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, 0: nn.BatchNorm1d}


def batch(dims):
    generator = torch.Generator().manual_seed(dims)
    x = torch.randn(7, *SHAPES[dims], generator=generator, dtype=torch.float64) * 3 + 100
    return x, torch.randn(x.shape, generator=generator, dtype=torch.float64)


def train(norm, parts, weights):
    """Output, input gradient, parameter gradients and buffers after two training steps."""
    for x, w in zip(parts, weights, strict=True):
        x = x.clone().requires_grad_()
        norm.zero_grad()
        y = norm(x)
        (y * w).sum().backward()
    return y.detach(), x.grad, {n: p.grad for n, p in norm.named_parameters()}, dict(norm.named_buffers())


def make(dims, **options):
    norm = MAKERS[dims](6, **options).double()
    with torch.no_grad():
        for number, parameter in enumerate(norm.parameters()):
            parameter.copy_(torch.linspace(0.5, 2, 6, dtype=torch.float64) - number)
    return norm


def one_part(dims, cuts, options):
    """What this process has of two steps, the first with rows cut at cuts[0], the second at cuts[1]."""
    x, w = batch(dims)
    mine = [slice(0, cut) if collectives.rank() == 0 else slice(cut, None) for cut in cuts]
    norm = convert_batchnorm(make(dims, **options))
    assert type(norm) is SyncBatchNorm
    return train(norm, [x[rows] for rows in mine], [w[rows] for rows in mine])


@pytest.mark.parametrize("dims", MAKERS)
@pytest.mark.parametrize("cuts", [(4, 4), (6, 1), (3, 7)], ids=["even", "uneven", "none on one"])
@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}], ids=["plain", "cumulative", "no affine"]
)
def test_two_processes_equal_one(dims, cuts, options):
    x, w = batch(dims)
    y, grad, parameters, buffers = train(make(dims, **options), [x, x], [w, w])
    first, second = processes(one_part, dims, cuts, options)
    assert_close(torch.cat([first[0], second[0]]), y, atol=1e-9, rtol=0)
    assert_close(torch.cat([first[1], second[1]]), grad, atol=1e-9, rtol=0)
    for name, expected in parameters.items():
        assert_close(first[2][name] + second[2][name], expected, atol=1e-9, rtol=1e-12)
    for part in (first, second):
        assert_close(part[3], buffers, atol=1e-9, rtol=1e-12)


def averaged_by_ddp(cut):
    x, w = batch(2)
    mine = slice(0, cut) if collectives.rank() == 0 else slice(cut, None)
    wrapped = nn.parallel.DistributedDataParallel(convert_batchnorm(nn.Sequential(make(2))))
    (wrapped(x[mine]) * w[mine]).sum().backward()
    return {name: p.grad for name, p in wrapped.module[0].named_parameters()}


def test_ddp_with_the_batch_norm_gives_the_gradient_of_one_process():
    x, w = batch(2)
    expected = train(make(2), [x], [w])[2]
    for grads in processes(averaged_by_ddp, 5):
        for name, grad in expected.items():
            assert_close(2 * grads[name], grad, atol=1e-9, rtol=1e-12)


def one_value():
    norm = convert_batchnorm(make(0))
    x = batch(0)[0][:1, :, :1] + 0.5
    mine = x if collectives.rank() == 0 else x[:0]
    return train(norm, [mine], [torch.ones_like(mine)]), x


def test_a_single_value_updates_the_running_mean_only():
    (one, x), ((two, _), (other, _)) = one_value(), processes(one_value)
    y, grad, parameters, buffers = one
    bias = dict(make(0).named_parameters())["bias"]
    assert_close(y[0, :, 0], bias.detach())
    assert (grad == 0).all()
    assert_close(buffers["running_mean"], 0.1 * x[0, :, 0])
    assert_close(buffers["running_var"], torch.ones_like(bias).detach())
    assert_close((two[0], two[1], two[3]), (y, grad, buffers), atol=1e-12, rtol=0)
    assert_close(other[3], buffers, atol=1e-12, rtol=0)
    assert_close({name: two[2][name] + other[2][name] for name in parameters}, parameters, atol=1e-12, rtol=0)


def nothing_anywhere():
    norm = convert_batchnorm(nn.BatchNorm2d(4))
    y = norm(torch.zeros(0, 4, 3, 3, requires_grad=True))
    y.sum().backward()
    return y.shape, dict(norm.named_buffers())


def test_a_batch_without_rows_updates_no_statistics():
    for shape, buffers in processes(nothing_anywhere):
        assert shape == (0, 4, 3, 3)
        assert_close(buffers, dict(nn.BatchNorm2d(4).named_buffers()))


def convert_a_network():
    network = timm.create_model("resnet10t", num_classes=0).eval()
    x = torch.randn(2, 3, 32, 32)
    keys, before, weight = list(network.state_dict()), network(x), network.layer1[0].bn1.weight
    made = convert_batchnorm(network)
    assert made.layer1[0].bn1.weight is weight
    assert isinstance(made.layer1[0].bn1, SyncBatchNorm)
    assert not made.layer1[0].bn1.training
    assert not any(type(module) is nn.BatchNorm2d for module in made.modules())
    assert list(made.state_dict()) == keys
    assert_close(made(x), before)


def test_a_converted_network_keeps_weights_keys_mode_and_eval_output():
    processes(convert_a_network)


def convert_with_activation():
    x = torch.randn(4, 3, 5, 5)  # the processes are seeded alike: their union has the statistics of either
    plain, norm = BatchNormAct2d(3, act_layer=nn.SiLU), BatchNormAct2d(3, act_layer=nn.SiLU)
    assert_close(convert_batchnorm(norm)(x), plain(x))
    assert list(convert_batchnorm(norm).state_dict()) == list(plain.state_dict())


def test_timms_batch_norm_keeps_its_activation():
    processes(convert_with_activation)


def half():
    norm = convert_batchnorm(nn.BatchNorm1d(3))
    return norm(torch.randn(4, 3, dtype=torch.bfloat16)).dtype, norm.running_mean.dtype


def test_half_precision_is_kept_with_statistics_in_float32():
    assert processes(half) == [(torch.bfloat16, torch.float32)] * 2


@pytest.mark.parametrize("dims", MAKERS)
def test_on_one_process_it_equals_torchs_bit_for_bit(dims):
    x, w = batch(dims)
    assert_close(
        train(convert_batchnorm(make(dims)), [x, x], [w, w]), train(make(dims), [x, x], [w, w]), atol=0, rtol=0
    )


@pytest.mark.parametrize("rows_absent", [False, True])
def test_several_cuda_processes_use_torchs_unless_rows_are_absent(rows_absent, monkeypatch):
    monkeypatch.setattr("mvssl.distributed.batch_norm.world_size", lambda: 2)
    made = convert_batchnorm(nn.Sequential(nn.BatchNorm1d(3)), "cuda", rows_absent=rows_absent)
    assert type(made[0]) is (SyncBatchNorm if rows_absent else nn.SyncBatchNorm)
