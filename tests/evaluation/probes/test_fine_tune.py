"""Fine-tuning a small encoder: what it learns, its weights at the start, and equal results for equal seeds."""

from functools import partial

import pytest
import torch
from torch import nn

from mvssl.encoders import Features, Widths
from mvssl.evaluation.features.inputs import TrainableEncoder
from mvssl.evaluation.probes.few_label import draw_shots, rows_of_classes
from mvssl.evaluation.probes.fine_tune import finetune


class Small(nn.Module):
    """Two dimensions to eight, with batch norm, as `Features`."""

    widths = Widths((), 8)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())

    def forward(self, x):
        return Features((), self.net(x))


def product_signs(n: int, seed: int, multi: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    labels = x[:, 0] * x[:, 1] > 0
    return x, torch.stack([labels, x[:, 0] > 0], 1).float() if multi else labels.long()


def trainable(encoder=Small, multi: bool = False, seen: list | None = None) -> TrainableEncoder:
    seen = [] if seen is None else seen

    def batches(rows, steps, batch_size, seed, augment):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            some = rows[torch.randint(len(rows), (batch_size,), generator=generator)]
            seen.append((some, augment))
            yield tuple(part[some] for part in train)

    train, test = product_signs(500, 0, multi), product_signs(200, 1, multi)
    pieces = zip(*(part.split(64) for part in test), strict=True)
    return TrainableEncoder("view", 2, train[1], torch.device("cpu"), encoder, batches, partial(list, list(pieces)))


def test_an_encoder_learns_what_a_linear_classifier_cannot():
    result = finetune(trainable(), epochs=1, least_steps=300, rate=1e-2)
    assert result.value > 0.9
    assert len(result.parts) == 200


def test_an_encoder_learns_multi_hot_labels():
    result = finetune(trainable(multi=True), epochs=1, least_steps=300, rate=1e-2)
    assert result.metric.name == "mean_average_precision"
    assert result.value > 0.9


def test_training_starts_from_the_weights_of_the_encoder():
    """At a rate of nearly 0 the weights do not change."""
    with torch.random.fork_rng():
        start = Small()
    before = {name: x.clone() for name, x in start.state_dict().items() if "running" not in name and "num" not in name}
    finetune(trainable(lambda: start), epochs=0.1, least_steps=5, rate=1e-12, weight_decay=0)
    assert all(torch.allclose(start.state_dict()[name], x, atol=1e-6) for name, x in before.items())


def test_the_same_seed_gives_the_same_classifier_and_keeps_the_generator():
    before = torch.get_rng_state()
    first, again = (finetune(trainable(), epochs=1, least_steps=20, seed=3) for _ in range(2))
    assert torch.get_rng_state().equal(before)
    assert first.parts.equal(again.parts)
    assert not first.parts.equal(finetune(trainable(), epochs=1, least_steps=20, seed=4).parts)


def test_batch_norm_uses_the_batch_only_in_training():
    made = []
    finetune(trainable(lambda: made.append(Small()) or made[-1]), epochs=1, least_steps=10)
    assert not made[0].training
    assert made[0].net[1].num_batches_tracked == 10


def test_the_protocol_has_steps_and_epochs():
    protocol = finetune(trainable(), epochs=2, least_steps=1, batch_size=100).protocol
    assert protocol["steps"] == 10
    assert protocol["epochs"] == pytest.approx(2)


def test_with_shots_only_the_drawn_labels_are_used():
    seen = []
    result = finetune(trainable(seen=seen), shots=3, epochs=1, least_steps=10, seed=1)
    used = torch.cat([rows for rows, _ in seen]).unique()
    labels = product_signs(500, 0)[1]
    assert set(used.tolist()) <= set(draw_shots(rows_of_classes(labels), 3, 1, 0).tolist())
    assert torch.bincount(labels[used]).max() <= 3
    assert (result.what, result.protocol["labelled"]) == ("3 labels/class", 6)


def test_augmentation_is_an_option():
    for augment in (True, False):
        seen = []
        finetune(trainable(seen=seen), epochs=1, least_steps=2, augment=augment)
        assert {augmented for _, augmented in seen} == {augment}


def test_bf16_is_used_in_the_forward_pass_only():
    """Weights stay float32, and the result is nearly the same."""
    types = set()

    class Watched(Small):
        def forward(self, x):
            features = super().forward(x)
            types.add((self.net[0].weight.dtype, self.net[0](x).dtype))
            return features

    result = finetune(trainable(Watched), epochs=1, least_steps=300, rate=1e-2, precision="bf16")
    assert types == {(torch.float32, torch.bfloat16)}
    assert result.value > 0.9
    assert result.protocol["mode"] == "trained, bf16"
