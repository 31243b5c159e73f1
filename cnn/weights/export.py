"""Mode export: a run's weights for PyTorch, or its whole model as StableHLO.

`torch` writes `model.safetensors`, a state dict that torchvision's class loads with
`strict=True`; models that no PyTorch library has keep our names, with points for
slashes and PyTorch's layouts (a dense kernel behind a flattening keeps the order H, W,
C). `stablehlo` writes `model.stablehlo`, a `jax.export` artifact from uint8 images [N,
H, W, C] to float32 logits [N, K], any N, for cpu, cuda and tpu, scaling and weights
inside: `jax.export.deserialize(Path(…).read_bytes()).call(images)`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn.checkpoints import manifest, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.training import steps
from cnn.training.trained import Trained, load_trained
from cnn.weights import exchange, names, safetensors_file

PLATFORMS = ("cpu", "cuda", "tpu")
_TOLERANCE = 1e-5


def export(config: Config, directory: Path, terminal: Terminal) -> Path:
    """Export a trained run's weights, the averaged ones when averaging was on.

    The file is written into the run's directory; `checkpoint` says which weights.

    Returns:
        The file.

    Raises:
        UserError: there is no such checkpoint, or the reloaded artifact gives other
            logits.
    """
    trained = load_trained(directory, config.checkpoint.checkpoint)
    model = trained.options["model"]
    if config.export.export_format == "torch":
        path = directory / "model.safetensors"
        arrays = make_state_dict(directory, trained)
        safetensors_file.save_safetensors(path, arrays)
        known = names.has_torch_class(model)
        whose = "PyTorch's names" if known else "our names (no PyTorch library has it)"
        terminal.say(f"{model}: {len(arrays)} tensors under {whose}")
    else:
        path = directory / "model.stablehlo"
        content = make_artifact(trained)
        difference = check_artifact(trained, content)
        workdir.write_bytes(path, content)
        shape = "x".join(str(side) for side in trained.image_shape)
        terminal.say(
            f"{model}: uint8 images [N, {shape}] to logits on {', '.join(PLATFORMS)}; "
            f"reloaded, logits differ by {difference:.1e} of the largest"
        )
    terminal.say_written(path)
    return path


def make_state_dict(directory: Path, trained: Trained) -> dict[str, np.ndarray]:
    """Make the PyTorch state dict of a loaded run."""
    path = directory / "checkpoints" / str(trained.step)
    before = manifest.read_description(path).get("num_batches_tracked", 0)
    return exchange.export_state_dict(
        trained.options["model"], trained.variables, before + trained.step
    )


def make_artifact(trained: Trained) -> bytes:
    """Make the StableHLO artifact of a loaded run."""
    variables = jax.tree.map(np.asarray, trained.variables)

    def compute(images: jax.Array) -> jax.Array:
        return steps.predict_step(trained.structure, variables, images)

    (count,) = jax.export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((count, *trained.image_shape), jnp.uint8)
    exported = jax.export.export(jax.jit(compute), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def check_artifact(trained: Trained, content: bytes) -> float:
    """Reload an artifact and compare its logits, for two batch sizes.

    Returns:
        The largest difference over the largest logit.

    Raises:
        UserError: it is more than rounding explains.
    """
    reloaded = jax.export.deserialize(bytearray(content))
    worst = 0.0
    for count in (1, 3):
        size = int(np.prod((count, *trained.image_shape)))
        pixels = np.arange(size, dtype=np.uint32) * np.uint32(2654435761) >> 24
        images = pixels.astype(np.uint8).reshape(count, *trained.image_shape)
        ours = jax.jit(steps.predict_step, static_argnums=0)
        wanted = np.asarray(ours(trained.structure, trained.variables, images))
        found = np.asarray(reloaded.call(images))
        worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    if not worst <= _TOLERANCE:
        raise UserError(
            f"The exported artifact gives other logits (by {worst:.1e} of the "
            "largest); nothing was written. Please report model and versions"
        )
    return worst
