"""Mode export: a run's weights for PyTorch or Flax, or its whole model as StableHLO.

`torch` writes `model.safetensors`, a state dict that torchvision's class loads with
`strict=True`, unless the model has another stem, width or padding (which is printed);
models that no PyTorch library has keep our names, with points for slashes and PyTorch's
layouts (a dense kernel behind a flattening keeps the order H, W, C); and `model.py`,
the model for evaluation in PyTorch alone (see `torch_model`). `orbax` writes the
directory `model.orbax` and `msgpack` the file `model.msgpack`: plain trees of `params`
and `batch_stats`. `stablehlo` writes `model.stablehlo`, a `jax.export` artifact from
uint8 images [N, H, W, C] to float32 probabilities [N, K], any N, for cpu, cuda and tpu,
scaling and weights inside. `onnx` writes `model.onnx` (see `onnx.file`). Without
`--export_preprocessing` these two take scaled float32 images and give logits. `card`
describes all of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.checkpoints import atomic, checkpoint, manifest
from cnn.config import Config
from cnn.errors import UserError
from cnn.models import own
from cnn.models.layers import BatchNorm
from cnn.ops import scaling
from cnn.option import format_value
from cnn.runtime.terminal import Terminal
from cnn.training import steps
from cnn.training.trained import Trained, load_trained, make_classifier
from cnn.weights import card, exchange, names, safetensors_file
from cnn.weights.onnx import file as onnx_file
from cnn.weights.options import ExportOptions
from cnn.weights.tables.own import OWN
from cnn.weights.torch_model import file as torch_file

PLATFORMS = ("cpu", "cuda", "tpu")
_TOLERANCE = 1e-5
_SOURCE = "model.py"
# What classes of PyTorch do whose weights need nothing else; 0 is their own epsilon.
_USUAL = {
    "strided_padding": ("symmetric",),
    "bn_epsilon": (0.0, BatchNorm.epsilon),
    "stem": ("imagenet",),
    "width_multiplier": (1.0,),
}


def export(config: Config, directory: Path, terminal: Terminal) -> Path:
    """Export a trained run's weights, the averaged ones when averaging was on.

    The file is written into the run's directory, with `model.json` and a model card
    beside it; `checkpoint` says which weights.

    Returns:
        The file, or the directory of orbax.

    Raises:
        UserError: there is no such checkpoint, other weights are exported there, or
            the reloaded artifact gives other probabilities.
    """
    trained = load_trained(directory, config.checkpoint.checkpoint)
    chosen = FORMATS[config.export.export_format]
    description = card.describe(config, directory, trained)
    names = (chosen.file, *chosen.beside)
    for name in names:
        card.check_free(directory, description, name)
    path = directory / chosen.file
    if path.exists():
        terminal.say(f"note: {path} of the same weights is written again")
    with card.announce(directory, description, names):
        chosen.write(path, config.export, trained, terminal)
    written = dict.fromkeys(names, "") | {chosen.file: chosen.use}
    card.write(directory, description, written, terminal)
    terminal.say(f"described in {card.FILE} and {card.CARD} beside it")
    terminal.say_written(path)
    return path


def _write_torch(
    path: Path, options: ExportOptions, trained: Trained, terminal: Terminal
) -> None:
    model, arrays = trained.options["model"], make_state_dict(path.parent, trained)
    safetensors_file.save_safetensors(path, arrays, card.MODE)
    spelling = names.choose_written(model, trained.options)
    whose = f"the names of {spelling.library}"
    if spelling is OWN:
        whose = "our names (no PyTorch library has it)"
    elif not spelling.has_class:
        whose += f", which has no class of the model: use {_SOURCE}"
    elif others := _list_others(trained.options, spelling.needs):
        whose += f", whose class computes otherwise than {others}: use {_SOURCE}"
    terminal.say(f"{model}: {len(arrays)} tensors under {whose}")
    _write_source(path, arrays, trained, terminal)


def _list_others(options: Mapping[str, Any], needs: Mapping[str, Any]) -> str:
    """List the options that change a model's numbers, and that a library lacks."""
    return " ".join(
        f"--{name}={format_value(options[name])}"
        for name, usual in _USUAL.items()
        if options.get(name, usual[0]) not in (needs.get(name), *usual)
    )


def _write_source(
    path: Path, arrays: Mapping[str, np.ndarray], trained: Trained, terminal: Terminal
) -> None:
    """Write the model as a file of PyTorch, beside its state dict."""
    target = path.with_name(_SOURCE)
    try:
        source = torch_file.make_source(trained, arrays)
        difference = torch_file.check_source(source, trained, path)
    except UserError as error:
        target.unlink(missing_ok=True)  # of the same weights
        terminal.say(f"note: {_SOURCE} is not written: {error}")
        return
    atomic.write_bytes(target, source.encode(errors="backslashreplace"), card.MODE)
    checked = "not checked, for that pip install torch"
    if difference is not None:
        checked = f"PyTorch's logits differ by {difference:.1e} of the largest"
    terminal.say(f"{_SOURCE}: the same model for PyTorch alone; {checked}")


def _write_orbax(
    path: Path, options: ExportOptions, trained: Trained, terminal: Terminal
) -> None:
    checkpoint.check_tree(path)
    checkpoint.save_tree(path, make_tree(trained), card.MODE)
    _say_tree(trained, terminal)


def _write_msgpack(
    path: Path, options: ExportOptions, trained: Trained, terminal: Terminal
) -> None:
    from flax import serialization

    content = serialization.to_bytes(make_tree(trained))
    atomic.write_bytes(path, content, card.MODE)
    _say_tree(trained, terminal)


def _write_stablehlo(
    path: Path, options: ExportOptions, trained: Trained, terminal: Terminal
) -> None:
    inside = options.export_preprocessing
    content = make_artifact(trained, inside)
    difference = check_artifact(trained, content, inside)
    atomic.write_bytes(path, content, card.MODE)
    shape = "x".join(str(side) for side in trained.image_shape)
    kinds = ("uint8", "probabilities") if inside else ("scaled float32", "logits")
    terminal.say(
        f"{trained.options['model']}: {kinds[0]} images [N, {shape}] to {kinds[1]} on "
        f"{', '.join(PLATFORMS)}; reloaded, probabilities differ by {difference:.1e}"
    )


def _write_onnx(
    path: Path, options: ExportOptions, trained: Trained, terminal: Terminal
) -> None:
    content = onnx_file.make_file(trained, options.export_preprocessing)
    difference = onnx_file.check_file(trained, content, options.export_preprocessing)
    atomic.write_bytes(path, content, card.MODE)
    checked = "not checked, for that pip install onnxruntime"
    if difference is not None:
        checked = f"onnxruntime's logits differ by {difference:.1e} of the largest"
    terminal.say(
        f"{trained.options['model']}: opset {onnx_file.OPSET}, "
        f"{len(content) / 1e6:.1f} MB, any number of images; {checked}"
    )


def _say_tree(trained: Trained, terminal: Terminal) -> None:
    count = len(jax.tree.leaves(trained.variables))
    terminal.say(f"{trained.options['model']}: {count} arrays of params, batch_stats")


@dataclasses.dataclass(frozen=True)
class Format:
    """A form that weights are exported in.

    Attributes:
        file: what is written into the run's directory.
        write: writes it: its path, the options, the run, where to print.
        use: how it is used, Markdown for the model card.
        beside: what else is written there.
    """

    file: str
    write: Callable[[Path, ExportOptions, Trained, Terminal], None]
    use: str
    beside: tuple[str, ...] = ()


FORMATS = {
    "torch": Format(
        "model.safetensors",
        _write_torch,
        """PyTorch (`pip install torch safetensors`), where a library has such a class:

```python
from safetensors.torch import load_file

model.load_state_dict(load_file("model.safetensors"))
```

or with `model.py`, which is the model for evaluation and needs nothing else:

```python
import model

logits = model.load("model.safetensors")(model.scale(pixels))  # uint8, NHWC
```
""",
        (_SOURCE,),
    ),
    "orbax": Format(
        "model.orbax",
        _write_orbax,
        """Flax, from orbax (`pip install flax orbax-checkpoint`):

```python
import orbax.checkpoint as ocp

variables = ocp.StandardCheckpointer().restore(Path("model.orbax").absolute())
logits = model.apply(variables, (images / 255 - mean) / std)
```
""",
    ),
    "msgpack": Format(
        "model.msgpack",
        _write_msgpack,
        """Flax, from msgpack (`pip install flax`):

```python
from flax import serialization

variables = serialization.msgpack_restore(Path("model.msgpack").read_bytes())
logits = model.apply(variables, (images / 255 - mean) / std)
```
""",
    ),
    "stablehlo": Format(
        "model.stablehlo",
        _write_stablehlo,
        """JAX alone, preprocessing and weights inside (`pip install jax flatbuffers`):

```python
from jax import export

classify = export.deserialize(bytearray(Path("model.stablehlo").read_bytes())).call
probabilities = classify(images)  # uint8 [N, H, W, C], any N; the classes: model.json
```
""",
    ),
    "onnx": Format(
        "model.onnx",
        _write_onnx,
        """ONNX (`pip install onnxruntime`):

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(probabilities,) = session.run(["probabilities"], {"images": images})  # uint8, NHWC
```

With `--export_preprocessing=false` it takes float32 [N, C, H, W], scaled as below, and
gives `logits` alone.
""",
    ),
}


def make_tree(trained: Trained) -> dict[str, Any]:
    """Return `params` and `batch_stats` of a loaded run as arrays of numpy."""
    return jax.tree.map(np.asarray, trained.variables)


def make_state_dict(directory: Path, trained: Trained) -> dict[str, np.ndarray]:
    """Make the PyTorch state dict of a loaded run."""
    path = directory / "checkpoints" / str(trained.step)
    before = manifest.read_description(path).get("num_batches_tracked", 0)
    return exchange.export_state_dict(
        trained.options["model"],
        trained.variables,
        before + trained.step,
        trained.options,
    )


def make_artifact(trained: Trained, preprocessing: bool = True) -> bytes:
    """Make the StableHLO artifact of a loaded run.

    Args:
        preprocessing: whether it takes uint8 images and gives probabilities, rather
            than scaled float32 images [N, H, W, C] and logits.
    """
    variables, structure = make_tree(trained), trained.structure

    def compute(images: jax.Array) -> jax.Array:
        if preprocessing:
            logits = steps.predict_step(structure, variables, images)
            return structure.task.to_probabilities(logits)
        return structure.model.apply(variables, images).astype(jnp.float32)

    (count,) = jax.export.symbolic_shape("N")
    dtype = jnp.uint8 if preprocessing else jnp.float32
    images = jax.ShapeDtypeStruct((count, *trained.image_shape), dtype)
    with own.explaining(trained.options["model"], own.ANY_NUMBER):
        exported = jax.export.export(jax.jit(compute), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def check_artifact(
    trained: Trained, content: bytes, preprocessing: bool = True
) -> float:
    """Reload an artifact and compare its probabilities, for two batch sizes.

    Returns:
        The largest difference.

    Raises:
        UserError: it is more than rounding explains.
    """
    reloaded = jax.export.deserialize(bytearray(content))
    structure = trained.structure
    classify, worst = make_classifier(trained), 0.0
    for count in (1, 3):
        size = int(np.prod((count, *trained.image_shape)))
        pixels = np.arange(size, dtype=np.uint32) * np.uint32(2654435761) >> 24
        images = pixels.astype(np.uint8).reshape(count, *trained.image_shape)
        if preprocessing:
            found = reloaded.call(images)
        else:
            scaled = scaling.scale_images(images, structure.mean, structure.std)
            found = structure.task.to_probabilities(reloaded.call(scaled))
        worst = max(worst, float(np.abs(found - classify(images)).max()))
    if not worst <= _TOLERANCE:
        raise UserError(
            f"The exported artifact gives other probabilities (by {worst:.1e}); "
            "nothing was written. Please report model and versions"
        )
    return worst
