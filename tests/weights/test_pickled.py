"""What files of PyTorch hold beside plain tensors: models, arrays, other tensors."""

import pickle

import numpy as np
import pytest
from planted import load_torch_file
from torch_writer import Built, Called, Global, Stored, tensor, write

from cnn.errors import UserError
from cnn.weights import torch_file

NUMBERS = np.arange(12, dtype=np.float32)
STORED = Stored("Float", "0", 12)
WHOLE = tensor(STORED, 0, (12,), (1,))


def module(name, parameters=(), modules=(), left_out=(), **more):
    state = {"_parameters": dict(parameters), "_buffers": {"b": WHOLE, "c": WHOLE}}
    state |= {"_modules": dict(modules), "_non_persistent_buffers_set": set(left_out)}
    return Built(Global("mine", name), state | more)


def test_a_whole_model_is_read_as_its_state_dict(tmp_path):
    inner = module("Conv", {"w": tensor(STORED, 4, (2,), (1,))}, left_out=["c"])
    config = {"architecture": "resnet18"}
    net = module("Net", {"w": WHOLE}, {"0": inner}, pretrained_cfg=config)
    path = write(tmp_path / "f", net, {"0": NUMBERS})
    found = load_torch_file(path)
    assert sorted(found) == ["0.b", "0.w", "b", "c", "w"]
    assert found["0.w"].tolist() == [4, 5]
    says = torch_file.take_set(path, "", "f")[2]
    assert says == {"pretrained_cfg": "resnet18", "layers": "mine.Conv mine.Net"}


def test_a_model_that_comes_with_its_source_code_is_read(tmp_path):
    kind = Stored("Float", "0", 12)
    kind.id = ("module", Global("mine", "Net"), "net.py", "class Net: …")
    net = module("Net", {"w": WHOLE})
    net.function = kind
    found = load_torch_file(write(tmp_path / "f", net, {"0": NUMBERS}))
    assert sorted(found) == ["b", "c", "w"]


def test_a_model_of_endless_modules_is_refused(tmp_path):
    net = module("Net")
    for _ in range(40):
        net = module("Net", modules={"a": net, "b": net})
    with pytest.raises(UserError, match="more modules inside than any model"):
        load_torch_file(write(tmp_path / "f", net, {"0": NUMBERS}))


def test_what_a_file_says_of_its_architecture_is_found(tmp_path):
    thing = {"arch": "resnet18", "args": {"model": "my_net", "lr": 0.1}, "x": WHOLE}
    path = write(tmp_path / "f", thing, {"0": NUMBERS})
    says = torch_file.take_set(path, "", "f")[2]
    assert says == {"arch": "resnet18", "args.model": "my_net"}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8"])
def test_arrays_of_numpy_are_read(dtype, order, protocol, tmp_path):
    array = np.asarray(NUMBERS.reshape(3, 4), dtype, order=order)
    (tmp_path / "f").write_bytes(pickle.dumps({"w": array}, protocol))
    np.testing.assert_array_equal(load_torch_file(tmp_path / "f")["w"], array)


def test_an_array_without_its_numbers_is_none(tmp_path):
    raw = pickle.dumps({"w": NUMBERS}, 4).replace(b"K\x0c\x85", b"K\x0d\x85")
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(UserError, match="holds no weights"):
        load_torch_file(tmp_path / "f")


def test_tensors_that_are_not_numbers_are_refused_when_read(tmp_path):
    quantised = Global("torch._utils", "_rebuild_qtensor")
    for thing, what in (
        (tensor(STORED, 0, (12,), (1,), {"conj": True}), "conjugated"),
        (Called(quantised, STORED, 0, (12,), (1,)), "quantised"),
    ):
        path = write(tmp_path / "f", {"w": thing}, {"0": NUMBERS})
        leaf = torch_file.take_set(path, "", "f")[0]["w"]
        assert leaf.shape == (12,)
        with pytest.raises(UserError, match=f"w is .*{what}, which is not read"):
            leaf.read()


def test_a_storage_may_view_another(tmp_path):
    view = Stored("Float", "0", 12, ("0", 4, 8))
    path = write(tmp_path / "f", {"w": tensor(view, 1, (2,), (1,))}, {"0": NUMBERS})
    assert load_torch_file(path)["w"].tolist() == [5, 6]


def test_numbers_of_the_other_byte_order_are_read(tmp_path):
    tensors = {"w": tensor(STORED, 2, (2, 3), (1, 2))}
    path = write(tmp_path / "f", tensors, {"0": NUMBERS.astype(">f4")}, order=b"big")
    wanted = NUMBERS[2:8].reshape(3, 2).T
    np.testing.assert_array_equal(load_torch_file(path)["w"], wanted)


def test_numbers_that_changed_are_refused(tmp_path):
    path = write(tmp_path / "f", {"w": WHOLE}, {"0": NUMBERS})
    numbers = NUMBERS.tobytes()
    changed = path.read_bytes().replace(numbers, bytes(4) + numbers[::-1][4:])
    path.write_bytes(changed)
    with pytest.raises(UserError, match="data/0 has changed since it was written"):
        load_torch_file(path)


def test_tensors_that_repeat_a_storage_are_limited(tmp_path):
    many = np.zeros(2**18, np.float32)
    whole = tensor(Stored("Float", "0", many.size), 0, (many.size,), (1,))
    tensors = {f"w{i}": whole for i in range(12)}
    with pytest.raises(UserError, match="its tensors claim"):
        load_torch_file(write(tmp_path / "f", tensors, {"0": many}))
