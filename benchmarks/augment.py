"""Images a second of augmentation, beside dm-pix, augmax, torchvision v2 and kornia.

  python benchmarks/augment.py --size=32 --batch=128 [--torch_python=PATH] [--only=…]

Each draws new random numbers for every image. Ours, dm-pix and augmax run here, jitted,
where they can be imported; torchvision and kornia in the Python that --torch_python
names. All take turns, the best of five turns counts; ratios are ours over theirs.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

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


def make_own(case, batch, images, labels):
    """Return a function that varies the batch once, all drawing included."""
    import jax
    import jax.numpy as jnp

    from cnn.augment import pipeline
    from cnn.config import make_config
    from cnn.ops import scaling

    config = make_config(CASES[case])
    options, numbers = config.make_static().augment, config.make_numbers()
    # Augmentation's own alone: training passes all of them once for a chunk of steps.
    used = {"seed", *vars(options)}
    unused = vars(numbers).keys() - used
    numbers = dataclasses.replace(numbers, **dict.fromkeys(unused))
    mixes = {"mixup_alpha", "cutmix_alpha"} & CASES[case].keys()

    @jax.jit
    def run(images, labels, numbers, epoch):
        whole = {"images": images, "ids": jnp.arange(batch)}
        varied = pipeline.augment_images(options, numbers, epoch, whole)
        scaled = scaling.scale_images(varied, (0.5,), (0.25,))
        targets = jax.nn.one_hot(labels, 10) if mixes else labels
        return pipeline.mix_batch(options, numbers, epoch, whole, scaled, targets)

    counter = iter(range(10**9))
    images, labels, numbers = jax.device_put((images, labels, numbers))
    return lambda: jax.block_until_ready(run(images, labels, numbers, next(counter)))


def make_jax_peer(peer, case, images):
    """Return the same for dm-pix or augmax, or None where they have no such thing."""
    import jax
    import jax.numpy as jnp

    size = images.shape[1]
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

    @jax.jit
    def run(images, seed):
        keys = jax.random.split(jax.random.PRNGKey(seed), images.shape[0])
        floats = images.astype(jnp.float32) / 255
        return (jax.vmap(function)(keys, floats) - 0.5) / 0.25

    counter, images = iter(range(10**9)), jnp.asarray(images)
    return lambda: jax.block_until_ready(run(images, next(counter)))


def measure(run):
    """Return seconds of one call: as many calls as fill a third of a second."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.3 or count < 2:
        run()
        count += 1
    return (time.perf_counter() - started) / count


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
    """Return the best seconds a batch of each that has the case."""
    batch, turns = arguments.batch, {}
    turns["ours"] = functools.partial(measure, make_own(case, batch, images, labels))
    for peer in ("dm-pix", "augmax"):
        try:
            run = make_jax_peer(peer, case, images)
            if run:
                run()
                turns[peer] = functools.partial(measure, run)
        except ImportError:
            continue
        except Exception as error:
            print(f"{peer} {case}: {type(error).__name__}", file=sys.stderr)
    if torch:
        for peer in ("torchvision", "kornia"):
            if torch.measure(peer, case) is not None:
                turns[peer] = functools.partial(torch.measure, peer, case)
    best = dict.fromkeys(turns, np.inf)
    for turn in range(arguments.turns + 1):
        for name, run in turns.items():
            seconds = run()
            if turn:
                best[name] = min(best[name], seconds)
    return best


def main():
    """Measure and print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--torch_python", default="")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    random = np.random.default_rng(0)
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    labels = random.integers(0, 10, arguments.batch)
    torch = None
    if arguments.torch_python:
        torch = TorchPeer(arguments.torch_python, arguments.size, arguments.batch)
    print(
        f"{arguments.size}x{arguments.size}, batch {arguments.batch}; images/s (ratio)"
    )
    for case in arguments.only.split(",") if arguments.only else CASES:
        best = collect(case, arguments, images, labels, torch)
        cells = [
            f"{name} {arguments.batch / seconds:,.0f} ({seconds / best['ours']:.2f})"
            for name, seconds in best.items()
        ]
        print(f"{case:20} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
