"""Architecture: the model's layers and blocks, their shapes, and what each costs.

Blocks that are alike and follow each other are drawn once, with their number. It
follows from the model alone, whatever it has learnt.
"""

from pathlib import Path

import flax.linen as nn

from cnn.checkpoints import atomic
from cnn.models.options import ModelOptions
from cnn.option import read_group
from cnn.visualize.compute.architecture import find_architecture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.lecture import diagram, wording
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

# Modules that do nothing in evaluation, by the rate that makes them do it in training.
_RATES = {
    "dropout_rate": "Dropout",
    "stochastic_depth_rate": "StochasticDepth",
    "dropblock_rate": "DropBlock",
}


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw the model of each run, for the images that it was trained on."""

    def draw_run(run: NamedRun) -> list[Picture]:
        options = read_group(ModelOptions, run.trained.options)
        model, shape = run.trained.structure.model, run.trained.image_shape
        path = subject.name_file(folder, run, "architecture").with_suffix(".svg")
        return [draw_model(options, model, shape, path)]

    return subject.draw_runs(draw_run, subject.runs)


def draw_model(
    options: ModelOptions,
    model: nn.Module,
    image_shape: tuple[int, int, int],
    path: Path,
) -> Picture:
    """Draw a model as an SVG.

    Args:
        options: that the model was made of.
        image_shape: (H, W, C).
        path: of the file.

    Raises:
        UserError: the image is too small for the model.
    """
    shown = [module for rate, module in _RATES.items() if getattr(options, rate)]
    found = find_architecture(model, image_shape, shown)
    drawing = diagram.draw(found, options.model)
    atomic.write_text(path, drawing.to_svg())
    return Picture(path, drawing.title, wording.summarize(found))
