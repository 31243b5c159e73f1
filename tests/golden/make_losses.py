"""Make losses.json with PyTorch: python tests/golden/make_losses.py

Cross-entropy, its label smoothing and its class weights, with gradients; then `cases`:
each loss of PyTorch, torchvision and timm on hard, smoothed and mixed targets, with and
without class weights; and `paths`: the weights of a small net after 20 steps of each.
"""

import json
from pathlib import Path

import timm.loss
import torch
import torchvision

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -3.0], [9.0, 0.0, 4.0, 1.0]] * 2
LABELS = [0, 3, 2, 1, 3, 0]
WEIGHTS = [0.5, 2.0, 1.25, 0.0625]
# Each example mixed with the one before, whose share is this.
SHARES = [0.25, 0.5, 0.125, 0.0, 0.375, 0.75]
SMOOTHING, THRESHOLD = 0.1, 0.2
KINDS = ("hard", "smooth", "mixed")


def make_targets(kind):
    """Return targets [6, 4], written out by hand."""
    hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4).float()
    if kind == "hard":
        return hot
    smooth = (1 - SMOOTHING) * hot + SMOOTHING / 4
    if kind == "smooth":
        return smooth
    share = torch.tensor(SHARES)[:, None]
    return (1 - share) * smooth + share * smooth.roll(1, 0)


def softmax(logits, targets, weight, kind):
    """Compute cross-entropy: of labels where it takes them, else of probabilities."""
    if kind == "mixed":
        if weight is None:
            return timm.loss.SoftTargetCrossEntropy()(logits, targets)
        return torch.nn.CrossEntropyLoss(weight=weight)(logits, targets)
    smoothing = SMOOTHING if kind == "smooth" else 0.0
    compute = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
    return compute(logits, torch.tensor(LABELS))


def make_bce(threshold=None, is_sum=False):
    """Make timm's binary cross-entropy, which smooths labels itself."""

    def compute(logits, targets, weight, kind):
        smoothing = SMOOTHING if kind == "smooth" else 0.0
        loss = timm.loss.BinaryCrossEntropy(
            smoothing=smoothing,
            target_threshold=threshold,
            weight=weight,
            sum_classes=is_sum,
        )
        given = targets if kind == "mixed" else torch.tensor(LABELS)
        return loss(logits, given)

    return compute


def make_focal(gamma, alpha=-1, is_sum=False):
    """Make torchvision's focal loss; class weights multiply its terms."""

    def compute(logits, targets, weight, kind):
        terms = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma)
        terms = terms if weight is None else terms * weight
        return terms.sum() / len(terms) if is_sum else terms.mean()

    return compute


def make_mse(is_sum=False):
    """Make the squared error; class weights multiply its terms."""

    def compute(logits, targets, weight, kind):
        if weight is None and not is_sum:
            return torch.nn.MSELoss()(logits, targets)
        terms = torch.nn.MSELoss(reduction="none")(logits, targets)
        terms = terms if weight is None else terms * weight
        return terms.sum() / len(terms) if is_sum else terms.mean()

    return compute


CASES = {
    "softmax": softmax,
    "bce": make_bce(),
    "bce_sum": make_bce(is_sum=True),
    "bce_threshold": make_bce(THRESHOLD),
    "bce_threshold_sum": make_bce(THRESHOLD, is_sum=True),
    "focal": make_focal(2),
    "focal_steep": make_focal(0.5, is_sum=True),
    "focal_alpha": make_focal(1.5, 0.25),
    "focal_flat": make_focal(0),
    "mse": make_mse(),
    "mse_sum": make_mse(is_sum=True),
}


def differentiate(compute):
    """Return a loss of the logits and its gradient."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = compute(logits)
    loss.backward()
    return {"loss": loss.item(), "gradient": logits.grad.tolist()}


def make_cases():
    """Return loss and gradient of each case, kind of targets and class weights."""
    found = {}
    for name, compute in CASES.items():
        for kind in KINDS:
            targets = make_targets(kind)
            for weight in (None, torch.tensor(WEIGHTS)):
                key = f"{name} {kind} {'plain' if weight is None else 'weighted'}"
                found[key] = differentiate(
                    lambda x, f=compute, t=targets, w=weight, k=kind: f(x, t, w, k)
                )
    return found


def follow(compute):
    """Train 6 numbers to 4 classes by 5 hidden units; returns the head's kernel."""

    def fill(*shape):
        numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
        return torch.sin(numbers + shape[0]).reshape(shape).requires_grad_()

    weights = [fill(6, 5), fill(5), fill(5, 4), fill(4)]
    inputs = torch.cos(torch.arange(36.0)).reshape(6, 6)
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        hidden = torch.relu(inputs @ weights[0] + weights[1])
        logits = hidden @ weights[2] + weights[3]
        compute(logits, make_targets("smooth"), None, "smooth").backward()
        optimizer.step()
    return weights[2].tolist()


def main():
    """Write the file."""
    golden = {"logits": LOGITS, "labels": LABELS, "weights": WEIGHTS}
    cases = {
        "plain": {},
        "smooth": {"label_smoothing": 0.1},
        "weighted": {"weight": torch.tensor(WEIGHTS)},
        "both": {"weight": torch.tensor(WEIGHTS), "label_smoothing": 0.1},
    }
    labels = torch.tensor(LABELS)
    for name, arguments in cases.items():
        golden[name] = differentiate(
            lambda x, a=arguments: torch.nn.CrossEntropyLoss(**a)(x, labels)
        )
    path = Path(__file__).parent / "losses.json"
    text = json.dumps(golden | {"shares": SHARES}, indent=1)
    # One case a line.
    lines = [
        f' "{part}": {{\n'
        + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items())
        + "\n }"
        for part, values in (
            ("cases", make_cases()),
            ("paths", {name: follow(compute) for name, compute in CASES.items()}),
        )
    ]
    path.write_text(text[:-2] + ",\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
