"""When an option is read, and what is said of one that is not."""

import pytest

from cnn import condition
from cnn.condition import Term
from cnn.config import list_conditions, list_fields, load_preset, make_config
from cnn.errors import UserError

CONDITIONS = {
    "momentum": ("optimizer=sgd|muon*",),
    "fill": ("mode_of_crop=zero",),
    "mode_of_crop": ("padding or angle",),
    "files": ("pictures=all|kernels and not examples",),
    "large": ("size!=small|tiny",),
    "both": ("padding", "angle"),
}
PLAIN = {
    "optimizer": "adam",
    "mode_of_crop": "zero",
    "padding": 0,
    "angle": 0.0,
    "pictures": ["curves"],
    "examples": [],
    "size": "small",
}


@pytest.mark.parametrize(
    "name, changes, is_read",
    [
        ("anything", {}, True),
        ("momentum", {}, False),
        ("momentum", {"optimizer": "sgd"}, True),
        ("momentum", {"optimizer": "muon_sgd"}, True),
        ("momentum", {"optimizer": "sgdx"}, False),
        ("mode_of_crop", {"padding": 4}, True),
        ("mode_of_crop", {"angle": 0.5}, True),
        ("fill", {}, False),  # the crop's mode is zero, and not read itself
        ("fill", {"padding": 4}, True),
        ("fill", {"padding": 4, "mode_of_crop": "reflect"}, False),
        ("files", {"pictures": ["curves", "kernels"]}, True),
        ("files", {"pictures": ["all"], "examples": [3]}, False),
        ("large", {}, False),
        ("large", {"size": "huge"}, True),
        ("both", {"padding": 1}, False),
        ("both", {"padding": 1, "angle": 1.0}, True),
    ],
)
def test_conditions_hold_where_they_say(name, changes, is_read):
    assert condition.is_read(name, CONDITIONS, PLAIN | changes) == is_read


@pytest.mark.parametrize("value", ["", 0, 0.0, False, [], "none", "off"])
def test_what_is_off_is_not_on(value):
    assert not Term("a").holds(value) and Term("a", (), True).holds(value)


@pytest.mark.parametrize("value", ["x", 1, 0.1, True, ["x"], "auto"])
def test_what_is_on(value):
    assert Term("a").holds(value) and not Term("a", (), True).holds(value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("not minutes", "commands with no --minutes"),
        ("not a and b=x", "--b=x with no --a"),
        ("mode=sweep or not a", "--mode=sweep or commands with no --a"),
    ],
)
def test_conditions_are_written_as_flags(text, words):
    assert condition.describe(text) == words


def test_explanation_follows_the_chain():
    told = condition.explain("fill", CONDITIONS, PLAIN)
    assert told == (
        "--mode_of_crop=zero; --mode_of_crop has an effect itself only with --padding "
        "or --angle"
    )
    told = condition.explain("momentum", CONDITIONS, PLAIN)
    assert told == "--optimizer=sgd | muon*; here --optimizer is adam"


@pytest.mark.parametrize("name", list_fields())
def test_every_condition_names_options_that_there_are(name):
    known = {"mode": "train"} | make_config().to_flat()
    texts = list_conditions()[name]
    terms = [t for text in texts for one in condition.parse(text) for t in one]
    assert {term.name for term in terms} <= known.keys()
    choices = {n: f.metadata["choices"] for n, f in list_fields().items()}
    for term in terms:
        if choices.get(term.name) and term.values:
            assert set(term.values) <= set(choices[term.name])


def test_preset_that_sets_what_it_does_not_read(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("options = {'optimizer': 'adamw', 'momentum': 0.5}")
    with pytest.raises(UserError, match=r"mine\.py: --momentum=0\.5 would have no"):
        load_preset(str(path))
    path.write_text("options = {'momentum': 0.5, 'trials_at_once': 3}")
    config = make_config(load_preset(str(path)), {"optimizer": "adamw"})
    config.check_read({"optimizer": "adamw"}, "train")  # the preset's is not given


def test_preset_that_holds_its_sweep_is_judged_by_its_trials(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("options = {'adam_beta1': 0.8, 'sweep': 'optimizer=adam,adamw'}")
    assert load_preset(str(path))["adam_beta1"] == 0.8


@pytest.mark.parametrize(
    "given",
    [{"epochs": 3}, {"momentum": 0.5}, {"mean": (0.5,)}, {"tta": "flip"}],
)
def test_what_is_read_passes(given):
    make_config(given).check_read(given, "train")
