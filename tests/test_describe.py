import json
import re

import pytest

from cnn import config as config_module
from cnn import describe, models
from cnn.errors import UserError
from cnn.models import summary
from cnn.models.options import ModelOptions
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal


def describe_model(shape=(9, 8, 2), **changes):
    model = models.create_model(ModelOptions(**changes), 5)
    return summary.describe_model(model, shape)


def test_convolutions_are_counted_at_every_place_of_their_output():
    found = describe_model(widths=(4, 6), kernel_size=3, batch_norm=False)
    rows = {row["path"]: row for row in found["layers"]}
    assert list(rows) == ["stage1_conv", "stage2_conv", "head"]
    first, second, head = rows.values()
    assert first["output_shape"] == [9, 8, 4] and first["type"] == "Conv"
    assert first["macs"] == 9 * 8 * (3 * 3 * 2 * 4)
    assert first["parameters"] == 3 * 3 * 2 * 4 + 4
    assert second["output_shape"] == [4, 4, 6]
    assert second["macs"] == 4 * 4 * (3 * 3 * 4 * 6)
    assert head["macs"] == 6 * 5 and head["parameters"] == 6 * 5 + 5


def test_totals_are_the_rows_sums():
    found = describe_model(widths=(4, 6), dense_widths=(7,))
    for total, name in (("num_parameters", "parameters"), ("macs", "macs")):
        assert found[total] == sum(row[name] for row in found["layers"])
    assert found["num_batch_stats"] == 2 * (4 + 6)
    assert found["parameter_bytes"] == 4 * found["num_parameters"]
    assert (found["input_shape"], found["output_shape"]) == ([9, 8, 2], [5])
    norm = next(row for row in found["layers"] if row["path"] == "stage1_norm")
    assert (norm["parameters"], norm["macs"]) == (8, 0)


def test_kernels_right_in_the_model_are_counted_where_they_are_laid():
    found = describe_model((8, 9, 2), model="sliding_regression")
    assert found["macs"] == (8 * 9) * (8 * 9 * 2) * 5
    found = describe_model((9, 7, 2), model="locally_connected", local_widths=(3,))
    assert found["macs"] == (4 * 3) * (3 * 3 * 2 * 3) + (4 * 3 * 3) * 5


def test_dense_layers():
    found = describe_model((4, 4, 1), model="mlp", mlp_widths=(3,))
    assert [row["macs"] for row in found["layers"]] == [16 * 3, 3 * 5]


def test_nothing_is_computed(monkeypatch):
    """A model that would take terabytes is described at once."""
    found = describe_model((8, 8, 2), widths=(10**6, 10**6))
    assert found["num_parameters"] > 9 * 10**12


def test_table_has_a_row_for_each_layer_and_one_for_all():
    found = describe_model(widths=(4, 6))
    table = summary.make_table(found)
    assert table.row_count == len(found["layers"]) + 1
    last = [list(column.cells)[-1] for column in table.columns]
    assert last[0] == "all" and last[3] == f"{found['num_parameters']:,}"


def test_long_tables_have_a_row_for_each_block():
    row = {"type": "Conv", "output_shape": [1], "parameters": 2, "macs": 3}
    layers = [row | {"path": f"block{i // 5}/conv{i}"} for i in range(50)]
    found = {"layers": layers, "num_parameters": 100, "macs": 150}
    table = summary.make_table(found)
    names, _, _, parameters, macs = (list(column.cells) for column in table.columns)
    assert names == [*(f"block{i}" for i in range(10)), "all"]
    assert set(parameters[:-1]) == {"10"} and set(macs[:-1]) == {"15"}


def test_describe_writes_what_it_returns(tmp_path, capsys):
    flat = {"model": "mlp", "mlp_widths": (3,), "image_size": 4, "channels": 3}
    config = config_module.make_config(flat | {"num_classes": 7})
    directory = tmp_path / "new"
    found = describe.describe(config, directory, Terminal())
    assert json.loads((directory / "describe.json").read_text()) == found
    assert found["model"] == "mlp" and found["output_shape"] == [7]
    assert found["num_parameters"] == 48 * 3 + 3 + 3 * 7 + 7
    told = capsys.readouterr().out
    assert f"{found['num_parameters']:,} parameters" in told
    sizes = found["memory"]
    assert sizes["parameters"] == sizes["optimizer_state"] == found["parameter_bytes"]
    assert sizes["total"] == sum(list(sizes.values())[:-2]) <= sizes["device"]
    assert f"{sizes['total'] / 2**20:,.1f} MiB" in told


def describe_memory(tmp_path, **changes):
    flat = {"model": "simple_cnn", "widths": (4, 6), "image_size": 16, "num_classes": 5}
    config = config_module.make_config(flat | {"momentum": 0.0} | changes)
    return describe.describe(config, tmp_path, Terminal())["memory"]


def test_memory_follows_the_options(tmp_path):
    plain = describe_memory(tmp_path, measure_memory=True)
    assert plain["optimizer_state"] == plain["averaged_weights"] == 0
    adam = describe_memory(tmp_path, optimizer="adam", ema_decay=0.9)
    assert adam["optimizer_state"] == 2 * adam["parameters"] + 4
    averaged = adam["parameters"] + adam["batch_stats"]
    assert adam["averaged_weights"] == averaged and "temporary" not in adam
    fewer = describe_memory(tmp_path, batch_size=64, measure_memory=True)
    assert fewer["temporary"] < 0.7 * plain["temporary"]


def test_too_large_a_batch_names_what_fits(tmp_path, monkeypatch, capsys):
    options = {"batch_size": 64, "measure_memory": True}
    largest = describe_memory(tmp_path, **options)["total"]
    capsys.readouterr()
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: largest // 2)
    describe_memory(tmp_path, **options)
    assert "MiB" in capsys.readouterr().out
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 2**20)
    describe_memory(tmp_path, **options)
    printed = capsys.readouterr().out
    assert re.search(r"--batch_size=\d+ would fit; or keep|no batch fits", printed)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match="a --batch_size that 8 divides"):
        describe_memory(tmp_path, batch_size=20, accumulate_steps=4)
    with pytest.raises(UserError, match="--mesh=data:4 asks for 4 devices"):
        describe_memory(tmp_path, mesh="data:4")


def test_too_small_image_is_refused(tmp_path):
    config = config_module.make_config({"image_size": 2, "model": "simple_cnn"})
    with pytest.raises(UserError, match="too small for this model: .*stage2"):
        describe.describe(config, tmp_path, Terminal())
    assert not (tmp_path / "describe.json").exists()


@pytest.mark.parametrize("model, smallest", [("alexnet", 63), ("vgg11", 32)])
def test_the_smallest_image_is_named(model, smallest):
    module = models.create_model(ModelOptions(model=model), 10)
    with pytest.raises(UserError, match=f"smallest image .* {smallest}x{smallest}:"):
        summary.describe_model(module, (smallest - 1, 300, 3))
    summary.describe_model(module, (smallest, smallest, 3))
