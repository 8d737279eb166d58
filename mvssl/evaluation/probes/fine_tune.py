"""Fine-tuning: the encoder is trained on labels. From untrained weights this is the supervised network.

in   one view's encoder, labelled batches of it to train on, and clean ones to test on
out  accuracy, or mean average precision, on test

AdamW with a short warm-up and a cosine to 0. Batch norm uses batch statistics in training and running ones in test.
Every encoder is trained with the same settings, so a difference comes from the weights at the start.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from mvssl.distributed.devices import arithmetic, laid_out, memory_format_for
from mvssl.evaluation.features.inputs import ProbeInputs, TrainableEncoder
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.probes.few_label import draw_shots, name_shots, rows_of_classes
from mvssl.evaluation.probes.fitting import loss, refuse_one_class, seeded
from mvssl.evaluation.results.metrics import Result, score_classifier
from mvssl.optim import build_optimizer, learning_rate, set_learning_rate
from mvssl.recipe import Evaluate, Optim


class Classifier(nn.Module):
    """An encoder and a linear layer on its vector."""

    def __init__(self, encoder: nn.Module, width: int, kinds: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, kinds)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(laid_out(x, self.encoder)).vector)


def finetune(
    trainable: TrainableEncoder, *, shots: int | None = None, epochs: float = 10, augment: bool = True,
    least_steps: int = 200, batch_size: int = 128, rate: float = 1e-3, weight_decay: float = 0.05,
    precision: Literal["fp32", "bf16"] = "fp32", seed: int = 0,
) -> Result:  # fmt: skip
    """Train for `epochs` passes over train and at least `least_steps` steps, then test once.

    With `shots`, train on this number of samples per class: the first draw of the few-label probe. `precision` is used
    for the forward passes. Weights and loss stay float32.
    """
    labels = trainable.labels
    refuse_one_class(labels)
    rows = torch.arange(len(labels)) if shots is None else draw_shots(rows_of_classes(labels), shots, seed, 0)
    batch_size = min(batch_size, len(rows))
    steps = max(least_steps, round(epochs * len(rows) / batch_size))
    table = Optim(lr=rate, weight_decay=weight_decay, warmup=max(1, steps // 20))
    forward = torch.autocast(trainable.device.type, torch.bfloat16, enabled=precision == "bf16")
    with arithmetic(precision):
        model = _train(trainable, rows, table, steps, batch_size, augment, forward, seed)
        with torch.inference_mode(), forward:
            tested = [(model(x).float(), truth) for x, truth in trainable.test()]
    scores, truth = (torch.cat(parts) for parts in zip(*tested, strict=True))
    protocol = {
        "classifier": "encoder and a linear layer on its vector, all weights trained, "
        + ("softmax" if truth.ndim == 1 else "one sigmoid per class"),
        "optimizer": "AdamW, warm-up over a twentieth of the steps, cosine to 0",
        "learning_rate": rate,
        "weight_decay": weight_decay,
        "labelled": len(rows),
        "augmentation": "the recipe's" if augment else "none",
        "epochs": round(steps * batch_size / len(rows), 2),
        "steps": steps,
        "batch_size": batch_size,
        "batch_norm": "batch statistics in training, running ones in test",
        "mode": f"trained, {precision}",
        "chosen": "fixed beforehand; the last step is tested",
    }
    return score_classifier(scores, truth, protocol, seed, what="" if shots is None else name_shots(shots))


def _train(
    trainable: TrainableEncoder, rows: Tensor, table: Optim, steps: int, batch_size: int, augment: bool,
    forward: torch.autocast, seed: int,
) -> Classifier:  # fmt: skip
    """Return encoder and classifier in eval mode, trained on these rows of train."""
    with seeded(seed, trainable.device), torch.enable_grad():
        encoder = trainable.encoder()
        model = Classifier(encoder, encoder.widths.vector, trainable.classes).to(trainable.device).train()
        model.to(memory_format=memory_format_for(model, trainable.device))  # as in pretraining
        optimizer = build_optimizer(model, table)
        for step, (x, labels) in enumerate(trainable.train(rows, steps, batch_size, seed, augment)):
            set_learning_rate(optimizer, learning_rate(table, step, steps))
            with forward:
                scores = model(x)
            value = loss(scores.float(), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return model.eval()


class FineTuning(FunctionProbe):
    """`finetune`, once for each number of shots in `evaluate.finetune`, or on all labels."""

    function = finetune
    runs_on = "view"
    needs_encoder = True

    @classmethod
    def settings(cls, evaluate: Evaluate) -> list[dict[str, Any]]:
        table = evaluate.finetune
        shared = {"epochs": table.epochs, "augment": table.augment, "precision": evaluate.precision}
        return [{**shared, "shots": shots} for shots in sorted(table.shots)] or [shared]

    def arguments(self, inputs: ProbeInputs) -> tuple[TrainableEncoder]:
        return (inputs.trainable_encoder(),)
