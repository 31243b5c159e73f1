"""Weights of other Flax codebases, in every form that they are saved in."""

import json
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_flax import (
    DIGITS,
    Listener,
    make_variables,
    rename_modules,
    save_msgpack,
    save_npz,
    save_orbax,
    save_steps,
    save_v1,
)
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

from cnn import config as config_module
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.training.trained import load_trained
from cnn.weights import convert, flax_names, leaf, load, safetensors_file

THEIRS = {"stage1_conv": "Conv_0", "stage1_norm": "BatchNorm_0"}
THEIRS |= {"stage2_conv": "Conv_1", "stage2_norm": "BatchNorm_1", "head": "Dense_0"}
RULES = tuple(f"{theirs}->{ours}" for ours, theirs in THEIRS.items())


def open_set(path, which="latest", key=""):
    found = load.load_weights(path, "--init_from", which, key)
    return found.leaves, found.notes


def read_set(path, which="latest", key=""):
    return {name: leaf.read(x) for name, x in open_set(path, which, key)[0].items()}


def assert_equal(found, tree):
    wanted = flatten_paths(tree)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def run(directory, source, **options):
    terminal = Listener()
    config = config_module.make_config(DIGITS | {"source": str(source)} | options)
    convert.convert(config, directory, terminal)
    return load_trained(directory).variables, terminal.text


def nest_state(variables):
    """A TrainState's tree, with what an optimizer keeps beside the weights."""
    moments = jax.tree.map(np.ones_like, variables["params"])
    return {
        "step": np.asarray(3),
        "opt_state": [{"mu": moments, "nu": moments}, {"count": np.asarray(3)}],
        **variables,
    }


WRITERS = {
    "msgpack": lambda path, x: save_msgpack(path / "model", x),
    "npz": lambda path, x: save_npz(path / "w.npz", x),
    "npz compressed": lambda path, x: save_npz(path / "w.npz", x, compress=True),
    "ocdbt": lambda path, x: save_orbax(path / "d", x),
    "zarr": lambda path, x: save_orbax(path / "d", x, use_ocdbt=False),
    "zarr 3": lambda path, x: save_orbax(path / "d", x, use_zarr3=True),
    "a manager": lambda path, x: save_steps(path / "d", {4: x}),
    "a step": lambda path, x: save_steps(path / "d", {4: x}) / "4",
    "an item": lambda path, x: save_steps(path / "d", {4: x}, about={"a": 1}),
    "v1": lambda path, x: save_v1(path / "d", x),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_variables_come_back_without_a_rule(writer, tmp_path):
    variables = make_variables()
    assert_equal(read_set(WRITERS[writer](tmp_path, variables)), variables)


def test_what_orbax_wrote_before_its_metadata_is_read(tmp_path):
    """A tree of msgpack that names its arrays, and holds the small ones itself."""
    variables = make_variables()
    path = save_orbax(tmp_path / "d", variables, use_ocdbt=False)
    for file in path.glob("_*"):
        file.unlink()
    tree = {k: "PLACEHOLDER://" + ".".join(k) for k in flatten_dict(variables)}
    tree["params", "head", "bias"] = variables["params"]["head"]["bias"]
    shutil.rmtree(path / "params.head.bias")
    save_msgpack(path / "checkpoint", unflatten_dict(tree))
    assert_equal(read_set(path), variables)
    (tmp_path / "small").mkdir()
    save_msgpack(tmp_path / "small" / "checkpoint", variables)
    assert_equal(read_set(tmp_path / "small"), variables)


def test_weights_are_found_at_any_depth(tmp_path):
    variables = make_variables()
    tree = {"train": {"inner": {**variables, "step": np.asarray(3)}}, "seed": 1}
    assert_equal(read_set(save_msgpack(tmp_path / "model", tree)), variables)
    tree = {"train": {"inner": {"params": variables}}}
    assert_equal(read_set(save_msgpack(tmp_path / "model", tree)), variables)


@pytest.mark.parametrize("writer", ["msgpack", "ocdbt", "zarr"])
def test_a_whole_train_state_gives_its_weights(writer, tmp_path):
    variables = make_variables()
    saved = WRITERS[writer](tmp_path, nest_state(variables))
    assert_equal(read_set(saved), variables)


def test_weights_are_found_under_any_key(tmp_path):
    ours, average = make_variables(0), make_variables(1)
    tree = {"model": ours, "ema": average, "step": np.asarray(1)}
    path = save_msgpack(tmp_path / "model", tree)
    assert_equal(read_set(path), ours)
    assert_equal(read_set(path, key="ema"), average)
    assert "ema" in " ".join(open_set(path)[1])
    with pytest.raises(UserError, match="--init_key=other names nothing"):
        open_set(path, key="other")


def test_an_optimizer_of_old_holds_the_weights(tmp_path):
    """`flax.optim` kept parameters as its target, and so does big_vision's `opt`."""
    variables = make_variables()
    for name in ("optimizer", "opt"):
        inner = {"target": variables["params"], "state": {"step": np.asarray(1)}}
        tree = {name: inner, "batch_stats": variables["batch_stats"]}
        path = save_msgpack(tmp_path / name, tree)
        assert_equal(read_set(path), variables)


def test_the_states_of_nnx_come_back(tmp_path):
    variables = make_variables()
    merged = {name: dict(x) for name, x in variables["params"].items()}
    for name, statistics in variables["batch_stats"].items():
        merged[name] |= statistics
    wrapped = jax.tree.map(lambda x: {"value": x}, merged)
    assert_equal(read_set(save_msgpack(tmp_path / "pure", merged)), variables)
    assert_equal(read_set(save_orbax(tmp_path / "state", wrapped)), variables)
    parts = jax.tree.map(lambda x: {"value": x}, list(variables.values()))
    assert_equal(read_set(save_orbax(tmp_path / "split", parts)), variables)


def test_names_of_flax_are_told_from_pytorchs():
    assert flax_names.is_flax(["a/kernel", "a/bias"])
    assert flax_names.is_flax(["a.scale", "a.bias"])
    assert not flax_names.is_flax(["a.scale", "a.weight"])


def test_a_layer_with_a_value_is_no_variable_of_nnx():
    tree = {"attention": {"value": np.ones(2), "query": np.ones(3)}}
    assert flax_names.unwrap_variables(tree) == tree


@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("collections", [True, False])
def test_safetensors_with_flaxs_names(separator, collections, tmp_path):
    variables, path = make_variables(), tmp_path / "w.safetensors"
    flat = flatten_dict(variables)
    flat = {separator.join(k if collections else k[1:]): x for k, x in flat.items()}
    safetensors_file.save_safetensors(path, flat)
    assert_equal(read_set(path), variables)


def test_steps_are_chosen(tmp_path):
    early, late = make_variables(0), make_variables(1)
    path = save_steps(tmp_path / "manager", {2: early, 10: late})
    files = tmp_path / "files"
    files.mkdir()
    for step, tree in ((2, early), (10, late)):
        save_msgpack(files / f"checkpoint_{step}", tree)
    for place in (path, files):
        assert_equal(read_set(place), late)
        assert_equal(read_set(place, which="2"), early)
        with pytest.raises(UserError, match="has latest and steps 2, 10"):
            open_set(place, which="3")
    with pytest.raises(UserError, match="--checkpoint=2 chooses among"):
        open_set(files / "checkpoint_2", which="2")


@pytest.mark.parametrize("form", ["ocdbt", "zarr"])
def test_devices_that_are_not_here_do_not_matter(form, tmp_path):
    """Arrays lay in parts on two devices, and then, it says, on eight of a TPU."""
    variables = make_variables(widths=(4, 4))
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    parted = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = jax.tree.map(
        lambda x: jax.device_put(x, whole if x.shape[0] % 2 else parted), variables
    )
    path = WRITERS[form](tmp_path, placed)
    stored = json.loads((path / "_sharding").read_text())
    there = {"sharding_type": "SingleDeviceSharding", "device_str": "TPU_7(process=3)"}
    stored = dict.fromkeys(stored, json.dumps(there))
    (path / "_sharding").write_text(json.dumps(stored))
    assert_equal(read_set(path), variables)


def test_arrays_in_chunks_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)
    variables = make_variables()
    path = save_msgpack(tmp_path / "model", variables)
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    assert_equal(read_set(path), variables)


def test_other_precisions_are_converted_and_said(tmp_path):
    variables = make_variables()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)
    wanted = jax.tree.map(lambda x: x.astype(np.float32), half)
    saved = [save_msgpack(tmp_path / "m", half), save_orbax(tmp_path / "o", half)]
    saved.append(save_npz(tmp_path / "n.npz", half))
    for path in saved:
        assert_equal(read_set(path), wanted)
        assert open_set(path)[1][-1] == "converts 12 arrays of bfloat16 to float32"


@pytest.mark.parametrize("writer", ["msgpack", "npz", "a manager"])
def test_a_tree_is_converted_to_a_run(writer, tmp_path):
    variables = make_variables()
    source = WRITERS[writer](tmp_path, rename_modules(variables, THEIRS))
    with pytest.raises(UserError, match="missing.*\n.*unexpected"):
        run(tmp_path / "run", source)
    assert not (tmp_path / "run").exists()
    found, _ = run(tmp_path / "run", source, init_rename=RULES)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(number, tmp_path):
    variables = make_variables()
    variables["params"]["head"]["bias"][3] = number
    source = save_msgpack(tmp_path / "model", variables)
    with pytest.raises(UserError, match="params/head/bias holds 1 numbers"):
        run(tmp_path / "run", source)
    assert not (tmp_path / "run").exists()


def forge_npz(path):
    """An array that claims 10^12 numbers of which four bytes are there."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in flatten_dict(make_variables(), sep="/").items():
            with archive.open(f"{name}.npy", "w") as file:
                about = {"descr": "<f4", "fortran_order": False, "shape": array.shape}
                if name == "params/head/kernel":
                    about["shape"] = (10**6, 10**6)
                np.lib.format.write_array_header_1_0(file, about)
                file.write(array.tobytes())
    return path


def forge_msgpack(path):
    import msgpack

    content = msgpack.packb(((10**6, 10**6), "float32", b"1234"), use_bin_type=True)
    tree = {"params": {"head": {"kernel": msgpack.ExtType(1, content)}}}
    path.write_bytes(msgpack.packb(tree))
    return path


def forge_orbax(path):
    save_orbax(path, make_variables(), use_ocdbt=False)
    about = path / "params.head.kernel" / ".zarray"
    stored = json.loads(about.read_text())
    about.write_text(json.dumps(stored | {"shape": [10**6, 10**6]}))
    return path


def test_a_forged_shape_takes_no_memory(tmp_path, monkeypatch):
    """Of npz and msgpack the file's bytes decide, of orbax the model's shapes."""
    for forge in (forge_npz, forge_msgpack):
        with pytest.raises(UserError, match=r"\[1000000, 1000000\] "):
            run(tmp_path / "run", forge(tmp_path / forge.__name__))
    source = forge_orbax(tmp_path / "forge_orbax")
    leaves = open_set(source)[0]
    assert leaves["params/head/kernel"].shape == (10**6, 10**6)
    monkeypatch.setattr(leaf.Leaf, "read", pytest.fail, raising=False)
    with pytest.raises(UserError, match=r"head/kernel is \[1000000, 1000000\], not"):
        run(tmp_path / "run", source)


@pytest.mark.parametrize("header", [b"{'descr': '", b"{\0}", b"(" * 9, b"1 \\ 2", b""])
def test_a_header_that_is_no_description_is_refused(header, tmp_path):
    with zipfile.ZipFile(tmp_path / "w", "w") as archive:
        length = len(header).to_bytes(2, "little")
        archive.writestr("a.npy", b"\x93NUMPY\x01\0" + length + header)
    with pytest.raises(UserError, match="truncated or no npz"):
        open_set(tmp_path / "w")


def test_arrays_of_objects_are_never_read(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{"params/head/kernel": np.array([{"a": 1}], object)})
    with pytest.raises(UserError, match="object"):
        open_set(path)


def mutate(content, random):
    """Change, cut out or insert a few bytes."""
    content = bytearray(content)
    for _ in range(int(random.choice([1, 1, 3, 20]))):
        place = int(random.integers(len(content)))
        if random.random() < 0.6:
            content[place] = int(random.integers(256))
        elif random.random() < 0.5:
            del content[place : place + int(random.integers(1, 9))]
        else:
            content[place:place] = random.bytes(int(random.integers(1, 9)))
    return bytes(content)


@pytest.mark.parametrize("writer", ["msgpack", "npz", "ocdbt", "zarr"])
def test_damaged_files_are_refused_or_read(writer, tmp_path):
    """60 of each here; 1,000 of each were tried once: nothing but UserError."""
    random = np.random.default_rng(0)
    good = WRITERS[writer](tmp_path, make_variables())
    refused = 0
    for _ in range(60):
        bad = tmp_path / "bad"
        if good.is_dir():
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(good, bad)
            files = [path for path in bad.rglob("*") if path.is_file()]
            files.sort(key=lambda path: path.stat().st_size)  # some names are random
            file = files[int(random.integers(len(files)))]
        else:
            file = shutil.copy(good, bad)
        file.write_bytes(mutate(file.read_bytes() or b"0", random))
        try:
            leaves, _ = open_set(bad)
            for array in leaves.values():
                if np.prod(array.shape, dtype=object) < 10**6:
                    leaf.read(array)
        except UserError:
            refused += 1
    assert refused > 10
