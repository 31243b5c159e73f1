"""Make losses.json with PyTorch: python tests/golden/make_losses.py

Cross-entropy, its label smoothing and its class weights, with gradients.
"""

import json
from pathlib import Path

import torch

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -3.0], [9.0, 0.0, 4.0, 1.0]] * 2
LABELS = [0, 3, 2, 1, 3, 0]
WEIGHTS = [0.5, 2.0, 1.25, 0.0625]


def main():
    """Write the file."""
    golden = {"logits": LOGITS, "labels": LABELS, "weights": WEIGHTS}
    cases = {
        "plain": {},
        "smooth": {"label_smoothing": 0.1},
        "weighted": {"weight": torch.tensor(WEIGHTS)},
        "both": {"weight": torch.tensor(WEIGHTS), "label_smoothing": 0.1},
    }
    for name, arguments in cases.items():
        logits = torch.tensor(LOGITS, requires_grad=True)
        loss = torch.nn.CrossEntropyLoss(**arguments)(logits, torch.tensor(LABELS))
        loss.backward()
        golden[name] = {"loss": loss.item(), "gradient": logits.grad.tolist()}
    path = Path(__file__).parent / "losses.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
