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
    "alexnet": ["torchvision/alexnet"],
    "vgg": ["torchvision/vgg11_bn", "timm/vgg11_bn"],
    "resnet": ["torchvision/resnet18", "timm/resnet18", "transformers/resnet18"],
    "bottleneck": ["torchvision/resnet50", "timm/resnet50", "transformers/resnet50"],
    "resnext": ["torchvision/resnext50_32x4d", "timm/resnext50_32x4d"],
    "wide_resnet": ["torchvision/wide_resnet50_2", "timm/wide_resnet50_2"],
    "densenet": ["torchvision/densenet121", "timm/densenet121"],
    "squeezenet": ["torchvision/squeezenet1_1"],
    "mobilenet": [
        "torchvision/mobilenet_v2",
        "timm/mobilenetv2_100",
        "transformers/mobilenet_v2",
    ],
    "efficientnet": [
        "torchvision/efficientnet_b0",
        "timm/efficientnet_b0",
        "timm/tf_efficientnet_b0",
        "transformers/efficientnet_b0",
    ],
    "convnext": [
        "torchvision/convnext_tiny",
        "timm/convnext_tiny",
        "transformers/convnext_tiny",
    ],
}
OURS = {"mobilenetv2_100": "mobilenet_v2", "tf_efficientnet_b0": "efficientnet_b0"}
AS_TENSORFLOW = ["timm/tf_efficientnet_b0", "transformers/mobilenet_v2"]
AS_TENSORFLOW += ["transformers/efficientnet_b0"]
SIZE, MEAN, STD = 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIMITS = {"onnx": 1e-4}
IN = (".pth in", "safetensors in")
COLUMNS = (*IN, "strict", "model.py", "orbax", "msgpack", "onnx", "stablehlo")


QUIET = Terminal()
QUIET.console.quiet = True


class Row:
    """What is compared of one model of one library: `cells`, by column."""

    def __init__(self, name: str, python: str, place: Path) -> None:
        """Let the library draw weights, and save them in a directory."""
        self.python, self.place = python, place
        library, theirs = name.split("/")
        self.cells: dict[str, float | str] = {}
        self.model = OURS.get(theirs, theirs)
        self.needs = TENSORFLOW if name in AS_TENSORFLOW else {}
        shape = (2, SIZE, SIZE, 3)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.savez(place / "images.npz", pixels=self.pixels, mean=MEAN, std=STD)
        self._call_torch("draw", library, theirs)
        self.wanted = np.load(place / "drawn.npy")

    def _call_torch(self, *arguments: str) -> None:
        script = Path(__file__).with_name("torch_weights.py")
        command = [self.python, str(script), *arguments, str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1][:200]
            raise UserError(f"{' '.join(arguments)}: {last}")

    def _fill(self, column: str, compute: Callable[[], np.ndarray]) -> None:
        try:
            difference = np.abs(compute() - self.wanted).max()
            self.cells[column] = float(difference / np.abs(self.wanted).max())
        except (UserError, OSError) as error:
            self.cells[column] = f"refused: {str(error).splitlines()[0]}"

    def _load(self, source: Path, **options: Any) -> np.ndarray:
        found = cnn.load(source, **options).features(self.pixels)
        return np.asarray(found["logits"])

    def compare(self) -> None:
        """Fill in the cells."""
        options = {"model": self.model, "image_size": SIZE, "mean": MEAN, "std": STD}
        options |= self.needs
        pth, saved = self.place / "weights.pth", self.place / "saved/model.safetensors"
        self._fill(IN[0], lambda: self._load(pth, **options))
        run = self.place / "run"

        def make_run() -> np.ndarray:
            given = options | {"source": str(saved)}
            convert.convert(config_module.make_config(given), run, QUIET)
            return self._load(run)

        self._fill(IN[1], make_run)
        if isinstance(self.cells[IN[1]], str):
            return
        for column, (form, compute) in {
            "strict": ("torch", self._load_strictly),
            "model.py": ("", lambda: np.load(self.place / "model.py.npy")),
            "orbax": ("orbax", lambda: self._load(run / "model.orbax", **options)),
            "msgpack": (
                "msgpack",
                lambda: self._load(run / "model.msgpack", **options),
            ),
            "onnx": ("onnx", lambda: self._run_onnx(run)),
            "stablehlo": ("stablehlo", lambda: self._run_stablehlo(run)),
        }.items():
            self._fill(column, lambda f=form, c=compute: self._export(run, f) or c())

    def _export(self, run: Path, form: str) -> None:
        if form:
            more = {"export_format": form}
            if form == "stablehlo":
                more["export_preprocessing"] = False
            config = config_module.make_config(workdir.read_config(run), more)
            export.export(config, run, QUIET)

    def _load_strictly(self) -> np.ndarray:
        library = "transformers" if self.needs else "torchvision"
        self._call_torch("check", library, self.model)
        return np.load(self.place / "strict.npy")

    def _run_onnx(self, run: Path) -> np.ndarray:
        import onnxruntime

        session = onnxruntime.InferenceSession(run / "model.onnx")
        return session.run(["logits"], {"images": self.pixels})[0]

    def _run_stablehlo(self, run: Path) -> np.ndarray:
        content = (run / "model.stablehlo").read_bytes()
        scaled = scaling.scale_images(self.pixels, MEAN, STD)
        return np.asarray(jax.export.deserialize(bytearray(content)).call(scaled))

    def format(self) -> str:
        """Write the cells as Markdown."""
        cells = [self.cells.get(column, "") for column in COLUMNS]
        return " | ".join(x if isinstance(x, str) else f"{x:.0e}" for x in cells)

    def is_good(self) -> bool:
        """Whether rounding explains every difference."""
        return all(
            not isinstance(cell, str) and cell <= LIMITS.get(column, 1e-5)
            for column, cell in self.cells.items()
        )


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
    for name in (name for family in families for name in FAMILIES[family]):
        with tempfile.TemporaryDirectory() as place:
            row = Row(name, options.torch_python, Path(place))
            row.compare()
        good &= row.is_good()
        print(f"| {name} | {row.format()} |", flush=True)
    raise SystemExit(not good)


if __name__ == "__main__":
    flags.run(main)
