"""Make distillation.json with PyTorch: python tests/golden/make_distillation.py

Soft and hard distillation losses on given logits, with gradients; and 20 SGD steps of a
student of one hidden layer that learns from a teacher of another width and scaling.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -3.0], [9.0, 0.0, 4.0, 1.0]] * 2
TAUGHT = [[0.0, 3.0, -0.5, 1.0], [12.0, 0.0, 0.3, 2.0]] * 3
SIDE, CLASSES, STEPS, BATCH = 4, 4, 20, 8
SHARE, TEMPERATURE, SMOOTHING = 0.7, 3.0, 0.1
STUDENT, TEACHER = {"mean": 0.5, "std": 0.25}, {"mean": 0.4, "std": 0.3}
KINDS = {"soft1": ("soft", 1.0), "soft4": ("soft", 4.0), "hard": ("hard", 1.0)}


def distil(kind, logits, taught, temperature):
    """Compute the mean distillation loss over examples."""
    if kind == "hard":
        return functional.cross_entropy(logits, taught.argmax(1))
    loss = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
    ours, theirs = ((x / temperature).log_softmax(1) for x in (logits, taught))
    return loss(ours, theirs) * temperature**2


def make_model(width):
    """Make an MLP of one hidden layer, with all weights random."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(SIDE * SIDE, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, CLASSES),
    )


def list_weights(model):
    """List weights [in, out] and biases, layer by layer."""
    return [(x.T if x.ndim == 2 else x).tolist() for x in model.parameters()]


def train(kind):
    """Train a student for 20 steps; returns all that it takes and what comes out."""
    torch.manual_seed(0)
    student, teacher = make_model(5), make_model(6)
    for weight in teacher.parameters():
        weight.requires_grad_(False).mul_(4)
    pixels = torch.randint(0, 256, (2 * BATCH, SIDE, SIDE, 1))
    labels = torch.randint(0, CLASSES, (2 * BATCH,))
    found = {
        "images": pixels.tolist(),
        "labels": labels.tolist(),
        "student": list_weights(student),
        "teacher": list_weights(teacher),
        "losses": [],
    }
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        rows = slice(step % 2 * BATCH, (step % 2 + 1) * BATCH)
        images = pixels[rows] / 255
        ours, theirs = ((images - x["mean"]) / x["std"] for x in (STUDENT, TEACHER))
        logits = student(ours)
        task = functional.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
        taught = distil(kind, logits, teacher(theirs), TEMPERATURE)
        optimizer.zero_grad()
        ((1 - SHARE) * task + SHARE * taught).backward()
        optimizer.step()
        found["losses"].append(task.item())
    return found | {"trained": list_weights(student)}


def main():
    """Write the file."""
    golden = {
        "logits": LOGITS,
        "taught": TAUGHT,
        "share": SHARE,
        "temperature": TEMPERATURE,
        "smoothing": SMOOTHING,
        "scaling": {"student": STUDENT, "teacher": TEACHER},
    }
    for name, (kind, temperature) in KINDS.items():
        logits = torch.tensor(LOGITS, requires_grad=True)
        loss = distil(kind, logits, torch.tensor(TAUGHT), temperature)
        loss.backward()
        golden[name] = {"loss": loss.item(), "gradient": logits.grad.tolist()}
    golden["runs"] = {kind: train(kind) for kind in ("soft", "hard")}
    path = Path(__file__).parent / "distillation.json"
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
