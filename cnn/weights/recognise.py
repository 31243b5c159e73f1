"""What a path holds, told by its content; its name and ending mean nothing."""

import re
import struct
import zipfile
from pathlib import Path

from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.weights.msgpack_file import begins_map, is_msgpack

RUN, CHECKPOINT, ORBAX = "run", "checkpoint", "orbax"
FLAX_FILES = "files of Flax"
TORCH_ZIP, TORCH_PICKLE, TORCH_TAR = "torch zip", "torch pickle", "torch tar"
TORCH = (TORCH_ZIP, TORCH_PICKLE, TORCH_TAR)
SAFETENSORS, NPZ, MSGPACK = "safetensors", "npz", "msgpack"

_ORBAX_FILES = (
    "_CHECKPOINT_METADATA",
    "_METADATA",
    "_sharding",
    "manifest.ocdbt",
    ".zarray",
    "orbax.checkpoint",
)
_GIVE = "give a file of PyTorch, safetensors, .npz or msgpack, or an orbax directory"
_UNPACK = "unpack it and give what is inside"
_DOWNLOAD = "download the file itself"
_KERAS = "save its weights as .npz, with np.savez(path, **arrays by name)"
_TENSORFLOW = "save its variables as .npz, with np.savez(path, **arrays by name)"
_OTHERS = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, which is text",
        "fetch the file with `git lfs pull`",
    ),
    (rb"\x1f\x8b", "compressed by gzip", _UNPACK),
    (rb"BZh\d", "compressed by bzip2", _UNPACK),
    (rb"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!", "another archive", _UNPACK),
    (rb"\x89HDF\r\n\x1a\n", "HDF5, as Keras saves it", _KERAS),
    (rb"\x93NUMPY", "a single NumPy array", "save several by name with np.savez"),
    (rb"MATLAB 5", "a MATLAB file", _GIVE),
    (rb"GGUF", "a GGUF file", _GIVE),
    (rb".{4}TFL3", "a TensorFlow Lite model", _GIVE),
    (rb".{,2048}ML\xefRStableHLO", "an exported program (StableHLO)", _GIVE),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", _GIVE),
    (rb"%PDF", "a PDF", _GIVE),
    # ModelProto: its version, then one of its short fields.
    (rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x3a\x42]", "an ONNX model", _GIVE),
)
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)
_TABLE_END = struct.pack("<Q", 0xDB4775248B80FB57)


def recognise(path: Path, flag: str) -> str:
    """Return which of the kinds above a path holds.

    Args:
        path: a file or a directory.
        flag: that named it, for messages: `--init_from` or `--source`.

    Raises:
        UserError: it is absent or something else, named for what it is.
    """
    if path.is_dir():
        return _recognise_directory(path, flag)
    if not path.is_file():
        raise UserError(f"{flag}={path} is no file or directory: it does not exist")
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            end = file.read(8)
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be read ({error.strerror})") from None
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path, head, flag)
    # Protocols 0 and 1 have no number: a mapping is their first instruction.
    if re.match(
        rb"\x80[\x01-\x05]|\((dp|lp)\d|\}q\0|c(copy_reg|collections)\n|L\d+L\n", head
    ):
        return TORCH_PICKLE
    if head[257:262] == b"ustar":
        return TORCH_TAR
    if size >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return SAFETENSORS
    _refuse(path, head, end, size, flag)
    if begins_map(head):
        return MSGPACK
    raise UserError(
        f"{flag}={path} is truncated or no file of weights that is known; {_GIVE}"
    )


def list_flax_files(path: Path) -> dict[int, Path]:
    """List by step the msgpack files `checkpoint_N` that Flax wrote before orbax."""
    found = [(re.fullmatch(r"checkpoint_(\d+)", x.name), x) for x in path.iterdir()]
    return {int(match[1]): x for match, x in found if match and x.is_file()}


def _refuse(path: Path, head: bytes, end: bytes, size: int, flag: str) -> None:
    """Refuse what is known to be something else, by what it is."""
    found = next(
        ((what, do) for key, what, do in _OTHERS if re.match(key, head, re.DOTALL)),
        None,
    )
    if not size:
        found = "empty, a download that did not come", _DOWNLOAD
    elif _HTML.match(head):
        found = "a web page (HTML), which is text", f"{_DOWNLOAD}, not its page"
    elif end == _TABLE_END or re.search(r"\.data-\d+-of-\d+$", path.name):
        found = "part of a TensorFlow checkpoint", _TENSORFLOW
    elif found is None and _is_text(head):
        found = f"text ({head[:40].decode('utf-8', 'ignore')!r}…)", _GIVE
    if found:
        what, do = found
        raise UserError(f"{flag}={path} is no file of weights but {what}; {do}")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _recognise_zip(path: Path, head: bytes, flag: str) -> str:
    """Tell one archive from another by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        # A truncated one has its first name still, and is said to be truncated by
        # what reads it.
        length = int.from_bytes(head[26:28], "little")
        names = [head[30 : 30 + length].decode("latin-1")]
        return NPZ if names[0].endswith(".npy") else TORCH_ZIP
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        what = "a TorchScript archive, which is a program; save model.state_dict()"
    elif any(name.endswith("data.pkl") for name in names):
        return TORCH_ZIP
    elif names and all(name.endswith(".npy") for name in names):
        return NPZ
    elif any(name.endswith((".weights.h5", "config.json")) for name in names):
        what = f"a Keras archive; {_KERAS}"
    elif any("models/" in name or "archive_format" in name for name in names):
        what = "an exported program of PyTorch; save model.state_dict()"
    else:
        what = f"a zip archive without weights of PyTorch or NumPy; {_UNPACK}"
    raise UserError(f"{flag}={path} is {what}")


def _recognise_directory(path: Path, flag: str) -> str:
    """Tell a run of ours, one of its checkpoints and orbax's directories."""
    if (path / workdir.MANIFEST).exists():
        return CHECKPOINT
    checkpoints = path / "checkpoints"
    if any(checkpoints.glob(f"*/{workdir.MANIFEST}")):
        return RUN
    # Steps lie below, and items below these.
    if (path / "saved_model.pb").exists() or any(path.glob("*.index")):
        raise UserError(f"{flag}={path} is a TensorFlow checkpoint; {_TENSORFLOW}")
    if any(map(_is_orbax, (path, *path.glob("*/"), *path.glob("*/*/")))):
        return ORBAX
    if list_flax_files(path):
        return FLAX_FILES
    files = _list_files(path)
    if checkpoints.is_dir() or ((path / workdir.CONFIG_FILE).exists() and not files):
        return RUN
    if (path / ".metadata").exists():
        what = (
            "a distributed checkpoint of PyTorch; make one file of it with `python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE`"
        )
    elif files:
        what = f"a directory; give the file: {flag}={files[0]}"
    else:
        what = f"a directory that holds no weights; {_GIVE}, or a run's directory"
    raise UserError(f"{flag}={path} is {what}")


def _is_orbax(path: Path) -> bool:
    has_file = any((path / name).is_file() for name in _ORBAX_FILES)
    return has_file or is_msgpack(path / "checkpoint")  # of versions before _METADATA


def _list_files(path: Path) -> list[Path]:
    """List what is called as files of weights are."""
    endings = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".msgpack")
    return sorted(x for x in path.iterdir() if x.name.endswith(endings))
