"""scikit-learn's handwritten digits: 1,797 grey 8×8 images, 1,437 train / 360 test.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (test
part), https://doi.org/10.24432/C50P49, as shipped inside scikit-learn.
"""

import gzip
import hashlib
import importlib.util
import io
import pathlib
import zlib

import numpy as np

from cnn.data import choose, decode, images
from cnn.data.options import DataOptions
from cnn.data.stamps import stamp_arrays
from cnn.errors import UserError

_TEST_SIZE = 360
_SPLIT_SEED = 0
# Of the table as int64: a file that was changed would be trained on in silence.
_SHA256 = "e10b10289c0d9d8a1b3e6b7dfe998949029a89056e0e06dfb989924a36d75a3c"


def load(rest: str, options: DataOptions) -> images.Dataset:
    """Load the digits with their fixed stratified split.

    Values 0..16 become `round(value * 255 / 16)`; 8 (127.5), the only tie, becomes
    128. The split is scikit-learn's `train_test_split(test_size=360, stratify=labels,
    random_state=0)` whatever the options.

    Args:
        rest: what stood behind `digits:`; must be empty.

    Raises:
        UserError: something stood behind the name, scikit-learn is missing, or its
            file is damaged.
    """
    if rest:
        raise UserError(
            f"--dataset=digits:{rest}: digits takes nothing after its name; "
            "write --dataset=digits"
        )
    table = _read_table()
    pixels, labels = table[:, :-1], table[:, -1]
    scaled = ((pixels.astype(np.int32) * 255 + 8) // 16).astype(np.uint8)
    names = images.number_examples("digits", len(labels))
    scaled = scaled.reshape(-1, 8, 8, 1)
    everything = decode.fit_images(scaled, labels, options, names, stamp_arrays(pixels))
    train, test = choose.stratified_split(labels, _TEST_SIZE, _SPLIT_SEED)
    return images.Dataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=everything.take(train),
        validation=None,
        test=everything.take(test),
    )


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load the digits of a split to be evaluated, or all of them, as `load` does."""
    dataset = load(rest, options)
    if split != "all":
        return images.get_part(dataset, split)
    everything = images.concatenate([dataset.train, dataset.test])
    return images.Evaluated(
        dataset.name, dataset.class_names, everything, is_whole=True
    )


def _read_table() -> np.ndarray:
    """Return the table [1797, 65] of 64 pixels and a label.

    The file is read without importing scikit-learn, which takes over a second.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError(
            "--dataset=digits needs scikit-learn, which holds the images: "
            "python -m pip install scikit-learn"
        )
    file = pathlib.Path(package.origin).parent / "datasets/data/digits.csv.gz"
    try:
        table = _read_file(file) if file.exists() else _ask_library()
        if hashlib.sha256(table.astype("<i8")).hexdigest() == _SHA256:
            return table
        reason = "it holds other numbers"
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = str(error)
    raise UserError(
        f"{file} is not the digits that scikit-learn comes with ({reason}); reinstall "
        "it: python -m pip install --force-reinstall --no-deps scikit-learn"
    )


def _read_file(file: pathlib.Path) -> np.ndarray:
    text = gzip.decompress(file.read_bytes()).decode("ascii")
    if not text:  # of which numpy would warn
        raise ValueError("it is empty")
    return np.loadtxt(io.StringIO(text), delimiter=",").astype(np.int64)


def _ask_library() -> np.ndarray:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)
