"""What a checkpoint says is checked before it is believed."""

import dataclasses
import json
import math

import pytest

from cnn.checkpoints import description, form, library, manifest, workdir
from cnn.config import Config
from cnn.data import identity
from cnn.errors import UserError
from cnn.training.progress import Counters
from cnn.training.report import read_ended
from cnn.training.trained import load_trained


def describe(**changes):
    return {
        "options": Config().to_flat(),
        "class_names": ["a", "b"],
        "image_shape": [8, 8, 3],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "records": dataclasses.asdict(Counters()),
    } | changes


def test_what_is_written_is_believed():
    assert description.find_problem(json.loads(json.dumps(describe()))) == ""
    old = describe()
    del old["options"]["lookahead_decay"]
    assert description.find_problem(old) == ""
    assert (
        description.find_problem(describe(options=old["options"] | {"gone": 1})) == ""
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("class_names", []),
        ("class_names", "ab"),
        ("class_names", ["a", "\ud800"]),
        ("class_names", ["a", "b\0"]),
        ("image_shape", [8, 8]),
        ("image_shape", [8, 8, 3.0]),
        ("image_shape", [10**6, 10**6, 3]),
        ("image_shape", [-8, -8, 3]),
        ("mean", [0.5, 0.5]),
        ("mean", [math.nan] * 3),
        ("std", [0.2, 0.0, 0.2]),
        ("std", [True] * 3),
        ("records", {"best_step": "15"}),
        ("records", {"best_step": 2**60}),
        ("environment", ["jax"]),
        ("options", {"model": "mlp"}),
        ("options", describe()["options"] | {"activation": "nonsense"}),
        ("options", describe()["options"] | {"batch_size": "20"}),
        ("thresholds", [0.5]),
        ("data", {"fingerprint": 1}),
    ],
)
def test_what_cannot_be_is_named(name, value):
    assert name in description.find_problem(describe(**{name: value})) or (
        name == "options" and description.find_problem(describe(**{name: value}))
    )


@pytest.mark.parametrize("found", [None, [], 3, "text", {}])
def test_what_is_no_description_is_refused(found):
    assert description.find_problem(found)


def test_forms_name_the_value_inside():
    wanted = {"a": [{"b?": int | None}], "*": str}
    assert form.find_problem({"a": [{"b": None}, {}], "c": ""}, wanted) == ""
    assert form.find_problem({"a": [{}, {"b": 1.5}]}, wanted) == (
        "a[1].b is not a whole number"
    )
    assert form.find_problem({"a": [{"c": 1}]}, wanted) == "a[0].'c' is unknown"
    assert form.find_problem({}, wanted) == "a is missing"


def test_counters_are_those_that_were_written():
    found = Counters(best_step=3, plateau=None, best_loss=math.nan)
    kept = json.loads(json.dumps(dataclasses.asdict(found) | {"plateau": {"bad": 2}}))
    made = description.read_dataclass(Counters, kept)
    assert made.best_step == 3 and made.plateau.bad == 2 and math.isnan(made.best_loss)
    for wrong in ({"best_step": "3"}, {"other": 1}, {"plateau": {"bad": "2"}}, []):
        with pytest.raises(ValueError):
            description.read_dataclass(Counters, wrong)


def test_whatever_a_library_raises_is_one_error(tmp_path):
    for error in (KeyError("a"), AssertionError(), RuntimeError("b\nc"), MemoryError()):
        with pytest.raises(
            manifest.DamagedCheckpoint, match="cannot be read"
        ) as raised:
            with library.explain_errors(tmp_path):
                raise error
        assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(KeyboardInterrupt), library.explain_errors(tmp_path):
        raise KeyboardInterrupt


def test_options_of_another_type_name_the_file(tmp_path):
    path = tmp_path / workdir.CONFIG_FILE
    for wrong in ({"model": 1}, {"model": "mlp"}, [], None):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="config.json is damaged"):
            workdir.read_config(tmp_path)
    # What may change when a run is resumed may be out of today's range.
    options = Config().to_flat() | {"keep_checkpoints": -1}
    path.write_text(json.dumps(options))
    assert workdir.read_config(tmp_path)["keep_checkpoints"] == -1


@pytest.mark.parametrize("text", ["[]", "{", '{"steps": "3"}', "nul", "null", "3"])
def test_a_result_that_cannot_be_printed_is_none(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    assert read_ended(tmp_path) is None


def test_a_record_is_whole_as_its_fingerprints_say(trained):
    record = json.loads((trained / "dataset.json").read_text())
    assert identity.is_whole(record)
    part = record["parts"]["train"]
    for wrong in (
        {"labels": part["labels"][::-1]},
        {"stamps": 3},
        {"count": 1},
        {"fingerprint": ""},
    ):
        parts = record["parts"] | {"train": part | wrong}
        assert not identity.is_whole(record | {"parts": parts})
    assert not any(map(identity.is_whole, (None, [], {}, 3, {"parts": []})))


@pytest.mark.parametrize("changes", [{"task": "x"}, {"options": {"model": "x"}}])
def test_a_model_or_task_that_there_is_not_names_the_file(
    trained, monkeypatch, changes
):
    def read(path):
        options = Config().to_flat() | changes.get("options", {})
        return describe(**changes) | {"options": options}

    monkeypatch.setattr(manifest, "read_description", read)
    with pytest.raises(manifest.DamagedCheckpoint, match="description.json"):
        load_trained(trained)
