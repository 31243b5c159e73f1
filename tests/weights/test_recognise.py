"""What a path holds is told by its content, and what is no weights by what it is."""

import pickle
import zipfile

import numpy as np
import pytest
from fixtures_flax import make_variables, save_msgpack, save_npz, save_orbax

from cnn.errors import UserError
from cnn.weights import recognise
from cnn.weights.safetensors_file import save_safetensors

OTHERS = {
    "empty": b"",
    "Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\n",
    "web page": b"\n <!DOCTYPE html><html><title>Virus scan warning</title>",
    "compressed by gzip.*unpack": b"\x1f\x8b\x08\0" + bytes(50),
    "HDF5.*npz": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "an ONNX model": b"\x08\x07\x12\x07pytorch",
    "StableHLO": b"\x40\0\0\0" + bytes(200) + b"ML\xefRStableHLO_v1",
    "single NumPy array": b"\x93NUMPY\x01\0",
    "an image": b"\x89PNG\r\n\x1a\n",
    "is no file of weights but text": b"learning_rate: 0.1\n",
    "truncated or no file of weights": b"\xc3\x28" * 90,
}


@pytest.mark.parametrize("words", OTHERS)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w"])
def test_what_is_no_weights_is_named(words, name, tmp_path):
    (tmp_path / name).write_bytes(OTHERS[words])
    with pytest.raises(UserError, match=f"--source=.*{words}"):
        recognise.recognise(tmp_path / name, "--source")


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("model/constants.pkl", "TorchScript"),
        ("config.json", "Keras archive"),
        ("readme.txt", "zip archive without weights"),
    ],
)
def test_archives_are_told_by_what_is_inside(inside, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr(inside, "x")
    with pytest.raises(UserError, match=words):
        recognise.recognise(tmp_path / "w.pth", "--source")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["model.ckpt-3.index", "checkpoint"], "TensorFlow checkpoint"),
        (["saved_model.pb"], "TensorFlow checkpoint"),
        ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
        (["weights.pth"], "give the file: --source=.*weights.pth"),
        (["notes.txt"], "holds no weights"),
        (["checkpoint", "run/checkpoint"], "is a directory that holds no weights"),
        (["weights.pth", "checkpoint/notes.txt"], "give the file: .*weights.pth"),
    ],
)
def test_directories_are_told_by_what_is_inside(files, words, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=words):
        recognise.recognise(tmp_path, "--source")


def test_an_older_file_of_any_protocol_is_pytorchs(tmp_path):
    for protocol in range(6):
        number = pickle.dumps(0x1950A86A20F9469CFC6C, protocol)
        (tmp_path / "w").write_bytes(number + bytes(9))
        assert recognise.recognise(tmp_path / "w", "--source") == recognise.TORCH_PICKLE


def test_the_ending_means_nothing(tmp_path):
    tree = make_variables()
    files = {
        recognise.MSGPACK: lambda path: save_msgpack(path, tree),
        recognise.SAFETENSORS: lambda path: save_safetensors(path, {"a": np.ones(2)}),
        recognise.NPZ: lambda path: save_npz(path, tree),
        recognise.ORBAX: lambda path: save_orbax(path, tree),
    }
    for kind, save in files.items():
        directory = tmp_path / kind
        directory.mkdir()
        save(directory / "w.npz")
        (directory / "w.npz").rename(directory / "w.th")
        assert recognise.recognise(directory / "w.th", "--source") == kind
