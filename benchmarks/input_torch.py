"""The part of benchmarks/input.py that needs torch: files to uint8 batches, by others.

  python benchmarks/input_torch.py PEER FOLDER SIZE MODE CORES

then a line for each round, which is answered with its seconds. PEER is `pillow`
(torchvision's transforms of PIL images), `torchvision` (its own decoder and tensors),
`opencv`, or `simplejpeg` with OpenCV's resizing by area, in a DataLoader with a worker
for each core, none for one core, or `tf.data`.
"""

import os
import sys
import time
from pathlib import Path

BATCH = 32


def make_torch(peer, paths, size, mode, cores):
    """Return a DataLoader of uint8 batches."""
    import torch
    from PIL import Image
    from torchvision import io
    from torchvision.transforms import InterpolationMode, v2

    torch.set_num_threads(1)
    how = {"interpolation": InterpolationMode.BILINEAR, "antialias": True}
    resize = v2.Resize(size if mode == "crop" else (size, size), **how)
    steps = [resize, v2.CenterCrop(size)] if mode == "crop" else [resize]
    fit = v2.Compose(steps)

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, i):
            if peer == "pillow":
                with Image.open(paths[i]) as image:
                    return v2.functional.pil_to_tensor(fit(image.convert("RGB")))
            if peer in ("opencv", "simplejpeg"):
                return torch.from_numpy(read_array(peer, paths[i], size, mode))
            content = io.read_file(paths[i])
            return fit(io.decode_jpeg(content, io.ImageReadMode.RGB))

    workers = cores if cores > 1 else 0
    return torch.utils.data.DataLoader(
        Files(), BATCH, num_workers=workers, persistent_workers=workers > 0
    )


def read_array(peer, path, size, mode):
    """Read a file as a uint8 array, cut or squashed to a size."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    content = Path(path).read_bytes()
    if peer == "simplejpeg":
        import simplejpeg

        image = simplejpeg.decode_jpeg(content)
    else:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    height, width = image.shape[:2]
    wanted = (size, size)
    if mode == "crop":
        scale = size / min(height, width)
        wanted = (round(width * scale), round(height * scale))
    if wanted != (width, height):
        image = cv2.resize(image, wanted, interpolation=cv2.INTER_AREA)
    left, top = ((side - size) // 2 for side in wanted)
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def make_tf(paths, size, mode, cores):
    """Return a tf.data pipeline of uint8 batches."""
    import tensorflow as tf

    def read(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        wanted = tf.constant([size, size])
        if mode == "crop":
            wanted = tf.cast(shape * size / tf.reduce_min(shape) + 1e-3, tf.int32)
        image = tf.image.resize(image, wanted, "bilinear", antialias=True)
        image = tf.image.resize_with_crop_or_pad(image, size, size)
        return tf.cast(tf.round(image), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    files = tf.data.Dataset.from_tensor_slices(paths)
    return files.map(read, cores).batch(BATCH).prefetch(1).with_options(options)


def main(peer, folder, size, mode, cores):
    """Read all files once for each line of standard input."""
    here = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, here[: int(cores)])
    paths = sorted(map(str, Path(folder).rglob("*.jpg")))
    arguments = (paths, int(size), mode, int(cores))
    loader = make_tf(*arguments) if peer == "tf.data" else make_torch(peer, *arguments)
    for _ in sys.stdin:
        started, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch)
        seconds = time.perf_counter() - started
        assert count == len(paths), (count, len(paths))
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
