"""The picture of a sweep over widths and learning rates."""

import numpy as np

from cnn.sweep import plots, transfer_plot


def make_row(parametrization, width, rate, loss, seed=0):
    """Make a row of a sweep's trial."""
    options = {"parametrization": parametrization, "width_multiplier": width}
    options |= {"learning_rate": rate, "seed": seed}
    metrics = {"validation_loss": loss, "validation_accuracy": 0.5}
    metrics |= {"test_loss": loss, "test_accuracy": 0.5, "curve": []}
    return {"trial": 0, "status": "finished", "options": options} | metrics


def test_the_best_rate_of_each_width_is_found_and_drawn(tmp_path):
    rows = [
        make_row(name, width, rate, (np.log(rate / best) ** 2 + seed), seed)
        for name, power in (("standard", 1.0), ("mup", 0.0))
        for width in (1.0, 4.0)
        for best in (0.1 / width**power,)
        for rate in (0.01, 0.025, 0.1, 0.4)
        for seed in (0, 1)
    ]
    found = transfer_plot.find_curves(rows, "loss")
    best = {name: {w: next(iter(x)) for w, x in found[name].items()} for name in found}
    assert best["standard"] == {1.0: 0.1, 4.0: 0.025}
    assert best["mup"] == {1.0: 0.1, 4.0: 0.1}
    assert found["mup"][1.0][0.1] == 0.5, "the mean over seeds"
    names = {one.path.name for one in plots.draw_plots(rows, "loss", tmp_path)}
    assert "transfer.png" in names
