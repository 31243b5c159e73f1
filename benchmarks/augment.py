"""Images a second of augmentation, beside dm-pix, augmax, torchvision v2 and kornia.

  python benchmarks/augment.py --size=32 --batch=128 [--torch_python=PATH] [--only=…]

Each draws new random numbers for every image. Ours, dm-pix and augmax run here, where
they can be imported: a loop over batches in one program, as training has it, compiled
with training's flags, or with XLA's own (--flags=xla). Such a peer runs twice: as it
comes, with keys from one `split` of a batch's and results that no byte need hold, and
`=` with what ours does besides: keys by seed, epoch and example, results limited and
rounded to bytes where they are computed. What is drawn, and from what range, stays the
peer's own.
torchvision and kornia run in the Python that --torch_python names. All take turns;
medians of CPU time over turns, in brackets theirs over ours with the range of turns.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

STEPS = 8  # batches in a program
SECONDS = 0.1
CIFAR = {"flip_probability": 0.5, "crop_padding": 4}
STRONG = CIFAR | {"rotation_degrees": 15.0, "shift": 0.1, "shear_degrees": 10.0}
STRONG |= {"scale_min": 0.9, "scale_max": 1.1, "brightness": 0.2, "contrast": 0.2}
STRONG |= {"saturation": 0.2, "cutout_size": 8, "mixup_alpha": 0.2}
IMAGENET = {"random_resized_crop_min_area": 0.08, "flip_probability": 0.5}
IMAGENET |= {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
IMAGENET |= {"policy": "randaugment"}
CASES = {
    "cifar_standard": CIFAR,
    "cifar_strong": STRONG,
    "imagenet": IMAGENET,
    "flip": {"flip_probability": 0.5},
    "crop": {"crop_padding": 4},
    "crop_reflect": {"crop_padding": 4, "crop_mode": "reflect"},
    "random_resized_crop": {"random_resized_crop_min_area": 0.08},
    "rotation": {"rotation_degrees": 15.0},
    "affine": {"rotation_degrees": 15.0, "shift": 0.1, "shear_degrees": 10.0},
    "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4},
    "saturation": {"saturation": 0.4},
    "hue": {"hue": 0.1},
    "posterize": {"posterize_bits": 4},
    "solarize": {"solarize": 0.5},
    "autocontrast": {"autocontrast_probability": 1.0},
    "equalize": {"equalize_probability": 1.0},
    "sharpness": {"sharpness": 0.5},
    "blur": {"blur_sigma": 1.0},
    "cutout": {"cutout_size": 8},
    "erasing": {"erasing_probability": 1.0},
    "mixup": {"mixup_alpha": 0.2},
    "cutmix": {"cutmix_alpha": 1.0},
    "randaugment": {"policy": "randaugment"},
    "trivialaugment": {"policy": "trivialaugment"},
    "augmix": {"policy": "augmix", "policy_magnitude": 3.0},
}


def make_own(case, images, labels):
    """Return a function that varies a loop of batches, all drawing included."""
    import jax
    import jax.numpy as jnp

    from cnn.augment import pipeline
    from cnn.config import make_config
    from cnn.ops import scaling

    config = make_config(CASES[case])
    options, numbers = config.make_static().augment, config.make_numbers()
    mixes = {"mixup_alpha", "cutmix_alpha"} & CASES[case].keys()

    def vary(batch, epoch, numbers):
        varied = pipeline.augment_images(options, numbers, epoch, batch)
        scaled = scaling.scale_images(varied, (0.5,), (0.25,))
        targets = jax.nn.one_hot(batch["labels"], 10) if mixes else batch["labels"]
        varied, targets = pipeline.mix_batch(
            options, numbers, epoch, batch, scaled, targets
        )
        return (varied, targets) if mixes else varied

    return make_loop(vary, images, jnp.asarray(labels), numbers)


def make_loop(vary, images, labels, numbers=None):
    """Return a function that runs a program of as many batches as there are.

    Args:
        vary: from (batch, epoch, numbers) to what training would get.
        images: uint8 [S, N, H, W, C]; labels [N].
        numbers: traced, as training has them.
    """
    import jax
    import jax.numpy as jnp

    from cnn.training import epoch as epochs

    steps, count = images.shape[:2]
    ids, labels = jnp.arange(steps * count), jnp.broadcast_to(labels, (steps, count))
    chunk = {"images": images, "ids": ids.reshape(steps, count), "labels": labels}

    @jax.jit
    def run(chunk, numbers, epoch):
        def take(i):
            return vary(epochs.take_batch(chunk, i), epoch, numbers)

        shapes = jax.eval_shape(take, 0)
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, steps, lambda i, _: take(i), empty)

    counter = iter(range(10**9))
    chunk, numbers = jax.device_put((chunk, numbers))
    return lambda: jax.block_until_ready(run(chunk, numbers, next(counter)))


def make_jax_peer(peer, case, images, labels, is_equal):
    """Return the same for dm-pix or augmax, or None where they have no such thing."""
    import jax
    import jax.numpy as jnp

    from cnn import keys

    size = images.shape[2]
    if peer == "dm-pix":
        import dm_pix

        one = {
            "flip": lambda k, x: dm_pix.random_flip_left_right(k, x),
            "crop": lambda k, x: dm_pix.random_crop(
                k, dm_pix.pad_to_size(x, size + 8, size + 8), x.shape
            ),
            "brightness": lambda k, x: dm_pix.random_brightness(k, x, 0.4),
            "contrast": lambda k, x: dm_pix.random_contrast(k, x, 0.6, 1.4),
            "saturation": lambda k, x: dm_pix.random_saturation(k, x, 0.6, 1.4),
            "hue": lambda k, x: dm_pix.random_hue(k, x, 0.1),
        }
        one["cifar_standard"] = lambda k, x: one["flip"](k, one["crop"](k, x))
        function = one.get(case)
    else:
        import augmax

        # Its random numbers are drawn by per-image keys under vmap, as it documents.
        parts = {
            "flip": lambda: [augmax.HorizontalFlip()],
            "crop": lambda: [augmax.RandomCrop(size - 4, size - 4)],
            "random_resized_crop": lambda: [
                augmax.RandomSizedCrop(size, size, zoom_range=(0.5, 2.0))
            ],
            "rotation": lambda: [augmax.Rotate((-15, 15))],
            "brightness": lambda: [augmax.RandomBrightness((-0.4, 0.4))],
            "contrast": lambda: [augmax.RandomContrast((-0.4, 0.4))],
            "solarize": lambda: [augmax.Solarization(0.5)],
            "blur": lambda: [augmax.GaussianBlur(1.0)],
        }
        parts["cifar_standard"] = lambda: parts["flip"]() + parts["crop"]()
        function = None
        if case in parts:
            chain = augmax.Chain(*parts[case]())
            function = lambda k, x: chain(k, x)  # noqa: E731
    if function is None:
        return None

    def vary(batch, epoch, _):
        ids, floats = batch["ids"], batch["images"].astype(jnp.float32) / 255
        if not is_equal:
            split = jax.random.split(jax.random.PRNGKey(epoch + ids[0]), len(ids))
            return (jax.vmap(function)(split, floats) - 0.5) / 0.25
        varied = jax.vmap(function)(keys.example_keys(0, epoch, ids, case), floats)
        if case in ("flip", "crop", "cifar_standard"):  # copies are bytes already
            return (varied - 0.5) / 0.25
        return (jnp.round(jnp.clip(varied, 0, 1) * 255) / 255 - 0.5) / 0.25

    return make_loop(vary, images, labels)


def measure(run):
    """Return CPU seconds of one batch: as many calls as fill some of a second."""
    started, count = time.process_time(), 0
    while time.process_time() - started < SECONDS or count < 2:
        run()
        count += 1
    return (time.process_time() - started) / count / STEPS


class TorchPeer:
    """Measures by `augment_torch.py`, which runs in another Python."""

    def __init__(self, python, size, batch):
        """Start that Python."""
        script = Path(__file__).with_name("augment_torch.py")
        command = [python, "-W", "ignore", str(script), str(size), str(batch)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, peer, case):
        """Return seconds a batch, or None where the peer lacks it."""
        self.process.stdin.write(f"{peer} {case}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def collect(case, arguments, images, labels, torch):
    """Return seconds a batch, one a turn, of each that has the case."""
    turns = {"ours": functools.partial(measure, make_own(case, images, labels))}
    for peer in ("dm-pix", "augmax"):
        for is_equal in (False, True):
            try:
                run = make_jax_peer(peer, case, images, labels, is_equal)
                if run:
                    run()
                    name = peer + "=" * is_equal
                    turns[name] = functools.partial(measure, run)
            except ImportError:
                continue
            except Exception as error:
                print(f"{peer} {case}: {type(error).__name__}", file=sys.stderr)
    if torch:
        for peer in ("torchvision", "kornia"):
            if torch.measure(peer, case) is not None:
                turns[peer] = functools.partial(torch.measure, peer, case)
    taken = {name: [] for name in turns}
    for turn in range(arguments.turns + 1):
        for name, run in turns.items():
            seconds = run()
            if turn:
                taken[name].append(seconds)
    return {name: np.array(each) for name, each in taken.items()}


def configure(flags):
    """Set the flags with which training compiles, or leave XLA its own."""
    if flags == "training":
        from cnn.runtime import xla
        from cnn.runtime.options import DeviceOptions

        xla.configure(DeviceOptions(compilation_cache="off"))


def main():
    """Measure and print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--flags", choices=("training", "xla"), default="training")
    parser.add_argument("--torch_python", default="")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    configure(arguments.flags)
    random, size = np.random.default_rng(0), arguments.size
    shape = (STEPS, arguments.batch, size, size, 3)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    labels = random.integers(0, 10, arguments.batch)
    torch = None
    if arguments.torch_python:
        torch = TorchPeer(arguments.torch_python, size, arguments.batch)
    print(f"{size}x{size}, batch {arguments.batch}; images/s (ratio, range of turns)")
    for case in arguments.only.split(",") if arguments.only else CASES:
        taken = collect(case, arguments, images, labels, torch)
        cells = [
            f"{name} {arguments.batch / np.median(seconds):,.0f} "
            + "({:.2f}, {:.2f}–{:.2f})".format(
                *(f(seconds / taken["ours"]) for f in (np.median, np.min, np.max))
            )
            for name, seconds in taken.items()
        ]
        print(f"{case:20} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
