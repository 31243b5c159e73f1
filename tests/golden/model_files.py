"""Files `model.py` of hashed weights, as `--mode=export` writes them.

`python -m tests.golden.model_files DIR` writes each with its state dict, for
make_model_files.py.
"""

import sys
import types
from pathlib import Path

import jax

from cnn import models
from cnn.config import make_config
from cnn.models.variables import create_variables, flatten_paths
from cnn.training.steps import Structure
from cnn.weights import exchange, names, safetensors_file
from cnn.weights.torch_model import file
from tests.golden import hashed

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.5, 0.75)
CASES = {
    "logistic_regression": (8, {}),
    "mlp": (8, {"mlp_widths": (16,), "activation": "gelu"}),
    "simple_cnn": (16, {"widths": (4, 8), "head": "flatten"}),
    "sliding_regression": (16, {}),
    "locally_connected": (16, {}),
    "resnet20": (16, {}),
    "wrn_10_1": (16, {}),
    "resnet18": (32, {"strided_padding": "same"}),
    "squeezenet1_1": (33, {}),
    "googlenet": (33, {}),
    "nin": (32, {}),
}


def make_trained(name):
    """Make what is known of a run, and its state dict."""
    size, changes = CASES[name]
    config = make_config({"model": name, **changes})
    classes = [f"class {i}" for i in range(hashed.NUM_CLASSES)]
    model = models.create_model(config.model, len(classes))
    shape = (size, size, 3)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, shape))
    entries = names.list_spellings(name, flatten_paths(shapes))[0]
    tensors = hashed.make_state_dict({e.name: e.torch_shape for e in entries})
    variables = exchange.import_state_dict(name, shapes, tensors, "hashed weights")
    structure = Structure(model, len(classes), MEAN, STD)
    trained = types.SimpleNamespace(
        structure=structure,
        variables=variables,
        options=config.to_flat(),
        class_names=classes,
        image_shape=shape,
    )
    return trained, exchange.export_state_dict(name, variables, 3)


def make_images(name):
    """Make uint8 images [2, H, W, 3]."""
    images = hashed.make_uniform("pixels", (2, CASES[name][0], CASES[name][0], 3))
    return (images * 256).astype("uint8")


if __name__ == "__main__":
    for name in CASES:
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        trained, state_dict = make_trained(name)
        (folder / "model.py").write_text(file.make_source(trained, state_dict))
        safetensors_file.save_safetensors(folder / "model.safetensors", state_dict)
