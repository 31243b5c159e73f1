"""Print how much logits differ through every format in and out, by library and model.

    python benchmarks/weights.py --torch_python=PYTHON [--families=resnet,vgg]

PYTHON has torch, torchvision, timm, transformers and safetensors. Each library draws
weights, running statistics too, saves them and computes the logits of two images of
64x64 pixels. They are read here (a state dict as `.pth`; safetensors, those of timm and
transformers with the files beside it) and exported in every format, and what is
exported is used as it is meant: model.safetensors is loaded strictly by the class that
has its names (torchvision's; transformers' where strides pad as TensorFlow's), model.py
runs in PyTorch, orbax and msgpack are read here again, onnx runs in onnxruntime and
stablehlo in `jax.export`. A cell is the largest difference from the library's logits,
divided by the largest of these. The exit code is 1 where one is above 1e-5 (onnx 1e-4)
or something is refused. Of Flax's imagenet example tests/weights/test_libraries.py has
the numbers.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flags
import jax
import numpy as np

import cnn
from cnn import config as config_module
from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.ops import scaling
from cnn.runtime import xla
from cnn.runtime.options import DeviceOptions
from cnn.runtime.terminal import Terminal
from cnn.weights import convert, export
from cnn.weights.spelling import TENSORFLOW

FAMILIES = {
    "alexnet": "torchvision/alexnet",
    "vgg": "torchvision/vgg11_bn timm/vgg11_bn",
    "resnet": "torchvision/resnet18 timm/resnet18 transformers/resnet18",
    "bottleneck": "torchvision/resnet50 timm/resnet50 transformers/resnet50",
    "resnext": "torchvision/resnext50_32x4d timm/resnext50_32x4d",
    "wide_resnet": "torchvision/wide_resnet50_2 timm/wide_resnet50_2",
    "densenet": "torchvision/densenet121 timm/densenet121",
    "squeezenet": "torchvision/squeezenet1_1",
    "mobilenet": "torchvision/mobilenet_v2 timm/mobilenetv2_100 "
    "transformers/mobilenet_v2",
    "efficientnet": "torchvision/efficientnet_b0 timm/efficientnet_b0 "
    "timm/tf_efficientnet_b0 transformers/efficientnet_b0",
    "regnet": "torchvision/regnet_y_400mf timm/regnety_004 transformers/regnet_y_400mf "
    "torchvision/regnet_x_400mf timm/regnetx_004_tv transformers/regnet_x_400mf",
    "convnext": "torchvision/convnext_tiny timm/convnext_tiny "
    "transformers/convnext_tiny",
}
OURS = {"mobilenetv2_100": "mobilenet_v2", "tf_efficientnet_b0": "efficientnet_b0"}
OURS |= {"regnety_004": "regnet_y_400mf", "regnetx_004_tv": "regnet_x_400mf"}
AS_TENSORFLOW = "timm/tf_efficientnet_b0 transformers/mobilenet_v2 "
AS_TENSORFLOW += "transformers/efficientnet_b0"
SIZE, MEAN, STD = 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
QUIET = Terminal()
QUIET.console.quiet = True


class Row:
    """One model of one library, whose logits everything is compared with."""

    def __init__(self, name: str, python: str, place: Path) -> None:
        """Let the library draw weights, and save them in a directory."""
        self.python, self.place, self.run = python, place, place / "run"
        library, theirs = name.split("/")
        self.needs = TENSORFLOW if name in AS_TENSORFLOW.split() else {}
        self.options = {"model": OURS.get(theirs, theirs), "image_size": SIZE}
        self.options |= {"mean": MEAN, "std": STD, **self.needs}
        shape = (2, SIZE, SIZE, 3)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.savez(place / "images.npz", pixels=self.pixels, mean=MEAN, std=STD)
        self._call_torch("draw", library, theirs)

    def _call_torch(self, *arguments: str) -> None:
        script = Path(__file__).with_name("torch_weights.py")
        command = [self.python, str(script), *arguments, str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1][:200]
            raise UserError(f"{' '.join(arguments)}: {last}")

    def _load(self, source: Path, **options: Any) -> np.ndarray:
        return cnn.load(source, **options).features(self.pixels)["logits"]

    def load_pth(self) -> np.ndarray:
        """Compute with the weights of a state dict."""
        return self._load(self.place / "weights.pth", **self.options)

    def load_safetensors(self) -> np.ndarray:
        """Compute with the weights as the library saves them, once they are a run."""
        source = str(self.place / "saved/model.safetensors")
        config = config_module.make_config(self.options | {"source": source})
        convert.convert(config, self.run, QUIET)
        return self._load(self.run)

    def _export(self, form: str, **options: Any) -> Path:
        options |= {"export_format": form}
        config = config_module.make_config(workdir.read_config(self.run), options)
        return export.export(config, self.run, QUIET)

    def load_strictly(self) -> np.ndarray:
        """Compute with the class that has the names, and with `model.py` too."""
        self._export("torch")
        library = "transformers" if self.needs else "torchvision"
        self._call_torch("check", library, self.options["model"])
        return np.load(self.place / "strict.npy")

    def load_source(self) -> np.ndarray:
        """Return what `model.py` has computed."""
        return np.load(self.place / "model.py.npy")

    def load_orbax(self) -> np.ndarray:
        """Compute with the tree, read again."""
        return self._load(self._export("orbax"), **self.options)

    def load_msgpack(self) -> np.ndarray:
        """Compute with the tree, read again."""
        return self._load(self._export("msgpack"), **self.options)

    def run_onnx(self) -> np.ndarray:
        """Compute with onnxruntime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self._export("onnx"))
        return session.run(["logits"], {"images": self.pixels})[0]

    def run_stablehlo(self) -> np.ndarray:
        """Compute with JAX alone."""
        path = self._export("stablehlo", export_preprocessing=False)
        program = jax.export.deserialize(bytearray(path.read_bytes()))
        return program.call(scaling.scale_images(self.pixels, MEAN, STD))

    def compare(self, compute: Callable[["Row"], np.ndarray]) -> float | str:
        """Return the difference of logits, or why there are none."""
        wanted = np.load(self.place / "drawn.npy")
        try:
            found = compute(self)
        except (UserError, OSError) as error:
            return f"refused: {str(error).splitlines()[0]}"
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())


COLUMNS = {
    ".pth in": (Row.load_pth, 1e-5),
    "safetensors in": (Row.load_safetensors, 1e-5),
    "class, strict": (Row.load_strictly, 1e-5),
    "`model.py`": (Row.load_source, 1e-5),
    "orbax": (Row.load_orbax, 1e-5),
    "msgpack": (Row.load_msgpack, 1e-5),
    "onnx": (Row.run_onnx, 1e-4),
    "stablehlo": (Row.run_stablehlo, 1e-5),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", type=flags.python_with_torch, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    options = parser.parse_args()
    families = options.families.split(",")
    if unknown := [name for name in families if name not in FAMILIES]:
        parser.error(f"{unknown[0]} is none of {', '.join(FAMILIES)}")
    print(f"| {' | '.join(['weights of', *COLUMNS])} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    good = True
    xla.configure(DeviceOptions())
    for name in (name for family in families for name in FAMILIES[family].split()):
        with tempfile.TemporaryDirectory() as place:
            row = Row(name, options.torch_python, Path(place))
            found = [row.compare(compute) for compute, _ in COLUMNS.values()]
        for (_, limit), x in zip(COLUMNS.values(), found, strict=True):
            good &= not isinstance(x, str) and x <= limit
        cells = [x if isinstance(x, str) else f"{x:.0e}" for x in found]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    raise SystemExit(not good)


if __name__ == "__main__":
    flags.run(main)
