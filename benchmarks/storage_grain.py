"""The part of benchmarks/storage.py that needs grain: ArrayRecord files, read by it.

  python benchmarks/storage_grain.py KIND DIRECTORY SIZE

then a line for each epoch, which is answered with its seconds, its CPU seconds and the
process's largest memory in bytes. KIND is what decodes the records, `pillow` or
`simplejpeg`, or `decoded`, whose records are pixels.
"""

import io
import resource
import sys
import time
from pathlib import Path

import grain
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

BATCH = 160


def write_records(kind, directory):
    """Write the files of a directory as records; returns where they are."""
    path = directory / f"{kind}.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for file in sorted(directory.glob("photos/train/*/*.jpg")):
        content = file.read_bytes()
        if kind == "decoded":
            content = simplejpeg.decode_jpeg(content).tobytes()
        writer.write(content)
    writer.close()
    return path


def main(kind, directory, size):
    """Read all records once for each line of standard input."""
    shape = int(size), int(size), 3
    decode = {
        "pillow": lambda x: np.asarray(Image.open(io.BytesIO(x)).convert("RGB")),
        "simplejpeg": simplejpeg.decode_jpeg,
        "decoded": lambda x: np.frombuffer(x, np.uint8).reshape(shape),
    }[kind]
    path = write_records(kind, Path(directory))
    source = grain.sources.ArrayRecordDataSource(str(path))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
    for number, _ in enumerate(sys.stdin):
        images = grain.MapDataset.source(source).shuffle(seed=number).map(decode)
        started, cpu = time.perf_counter(), time.process_time()
        count = sum(len(x) for x in images.batch(BATCH).to_iter_dataset(options))
        found = time.perf_counter() - started, time.process_time() - cpu
        assert count == len(source), (count, len(source))
        most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(*found, most, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
