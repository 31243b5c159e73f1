"""The rules of the house that a program can check, and that each check can fail.

Every rule is a function of a file's name and its parsed code that yields what breaks
it; below stands, for each, a few lines that do.
"""

import ast
import importlib
import inspect
import pkgutil
import types
from pathlib import Path

import pytest
from rules import RULES, find_room, list_imports, name_module

import cnn
from cnn import config as config_module

ROOT = Path(cnn.__file__).parent.parent
FILES = sorted(
    [ROOT / "main.py", *ROOT.glob("cnn/**/*.py"), *ROOT.glob("configs/*.py")]
)


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_code_keeps_the_rule(rule):
    broken = []
    for path in FILES:
        name, text = str(path.relative_to(ROOT)), read(path)
        broken += [f"{name}: {what}" for what in rule(name, text, ast.parse(text))]
    assert not broken, "\n".join(broken)


HEAD = '"""A module."""\n'
LONG_BODY = "\n".join(f"    x = {i}" for i in range(60))
BAD = {
    "imports_go_down": [
        ("cnn/training/losses.py", "from cnn import train"),
        ("cnn/ops/pooling.py", "from cnn.models import layers"),
        ("cnn/models/variables.py", "import cnn.checkpoints.checkpoint"),
        ("cnn/training/steps.py", "def f():\n    from cnn.transfer import plan"),
        ("cnn/train.py", "from cnn.evaluation import evaluate"),
        ("cnn/new_thing.py", "from cnn import errors"),
        ("cnn/data/npz.py", "from cnn.models import FAMILIES"),
        ("cnn/option.py", "from cnn.config import Config"),
        ("cnn/data/options.py", "from cnn.config import Config"),
        ("cnn/optim/muon.py", "from ..training import steps"),
        ("cnn/ops/pooling.py", "from cnn.config import Config"),
        ("cnn/optim/muon.py", "from cnn import train"),
    ],
    "nothing_is_imported_for_types_alone": [
        ("cnn/train.py", "if TYPE_CHECKING:\n    from cnn.config import Config"),
    ],
    "modules_are_in_rooms": [("cnn/losses.py", "")],
    "functions_take_few_things": [
        ("cnn/keys.py", "def f(a, b, c, d, e, f, g, *, h, i):\n    pass"),
        ("cnn/keys.py", "def f(a, b, c, d, e, f, g, h, **i):\n    pass"),
    ],
    "heavy_modules_in_functions": [
        ("cnn/checkpoints/checkpoint.py", "from orbax.checkpoint import v1"),
        ("cnn/data/tfds.py", "import tensorflow_datasets"),
        ("cnn/data/decode.py", "from PIL import Image"),
        ("cnn/visualize/a.py", "try:\n    import matplotlib.pyplot\nexcept E: pass"),
        ("cnn/training/steps.py", "def f():\n    from orbax.checkpoint import v1"),
    ],
    "pure_below_the_modes": [
        ("cnn/training/losses.py", "def f():\n    print(1)"),
        ("cnn/training/metrics.py", "import logging"),
        ("cnn/training/steps.py", "import time"),
        ("cnn/ops/pooling.py", "def f(x):\n    return open(x)"),
        ("cnn/models/linear.py", "y = np.random.rand()"),
        ("cnn/training/losses.py", "def f():\n    global x\n    x = 1"),
        ("cnn/optim/muon.py", "import time"),
        ("cnn/training/steps.py", "from absl import logging"),
        ("cnn/training/steps.py", "from cnn.runtime import terminal"),
        ("cnn/training/steps.py", "jax.debug.print('x')"),
    ],
    "files_have_names": [("cnn/data/utils.py", ""), ("cnn/helpers/a.py", "")],
    "public_names_are_described": [
        ("cnn/training/losses.py", None),
        ("cnn/training/losses.py", "def f(x):\n    return x"),
        ("cnn/training/losses.py", "class A:\n    pass"),
        (
            "cnn/training/losses.py",
            'class A:\n    """A."""\n\n    def f(self):\n        x = 1',
        ),
    ],
    "key_comes_first": [("cnn/training/losses.py", "def f(images, key):\n    pass")],
    "words_of_the_house": [("cnn/training/losses.py", "def f(rng):\n    pass")],
    "functions_are_short": [("cnn/training/losses.py", f"def f():\n{LONG_BODY}")],
    "nothing_is_left_undone": [("cnn/training/losses.py", "x = 1  # TO" + "DO: more")],
    "options_are_declared": [
        ("cnn/training/steps.py", "class AOptions:\n    size: int = 3"),
        ("cnn/training/steps.py", "class AOptions:\n    size: int"),
        ("cnn/training/steps.py", "class AOptions:\n    size: int = option(3, '')"),
        ("cnn/training/steps.py", "class AOptions:\n    size: int = option(3)"),
    ],
    "no_pmap": [
        ("cnn/training/steps.py", "f = jax.pmap(g)"),
        ("cnn/training/steps.py", "from jax import pmap as p"),
    ],
    "nothing_is_imported_by_name": [
        ("cnn/training/steps.py", "m = importlib.import_module(name)"),
        ("cnn/training/steps.py", "m = eval(name)"),
    ],
}


def list_bad():
    return [(rule, *case) for rule, cases in BAD.items() for case in cases]


@pytest.mark.parametrize("rule, name, text", list_bad())
def test_rule_fails_when_it_is_broken(rule, name, text):
    text = "x = 1" if text is None else HEAD + text
    assert list(RULES[rule](name, text, ast.parse(text))), "the rule saw nothing"


def test_every_rule_has_a_case_that_breaks_it():
    assert set(BAD) == set(RULES)


def find_cycle(graph):
    """Return modules that import each other in a circle; empty when none do."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph.get(name, ())):
            if cycle := visit(target):
                return cycle
        path.pop()
        done.add(name)
        return []

    return next((cycle for name in sorted(graph) if (cycle := visit(name))), [])


def read_graph():
    """Return which of our modules imports which."""
    modules = {name_module(str(p.relative_to(ROOT))): p for p in FILES}
    return {
        name: (list_imports(ast.parse(read(path))) & set(modules)) - {name}
        for name, path in modules.items()
    }


def test_modules_have_no_cycles():
    graph = read_graph()
    assert find_cycle(graph) == []
    assert len(graph) > 150 and "cnn.errors" in graph["cnn.option"]


def test_rooms_have_no_cycles():
    rooms = {}
    for name, targets in read_graph().items():
        inside = rooms.setdefault(find_room(name), set())
        inside |= {find_room(target) for target in targets} - {find_room(name)}
    assert find_cycle(rooms) == []
    assert {"training", "optim", "ground"} <= set(rooms)


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_config_imports_options_alone():
    ours = {x for x in read_graph()["cnn.config"] if x.startswith("cnn.")}
    plain = {"cnn.option", "cnn.condition", "cnn.errors", "cnn.place", "cnn.own_code"}
    assert {x for x in ours if not x.endswith(".options")} == plain


def test_every_group_of_options_is_composed():
    composed = {type(group) for group in vars(config_module.Config()).values()}
    parents = {parent for group in composed for parent in group.__mro__}
    walked = [name for _, name, _ in pkgutil.walk_packages(cnn.__path__, "cnn.")]
    assert {"cnn.sweep.options", "cnn.visualize.options"} <= set(walked)
    for name in walked:
        module = importlib.import_module(name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__name__.endswith("Options"):
                assert cls in parents, f"{name}: {cls.__name__} is not in Config"


def test_nothing_heavy_is_imported_for_the_manual():
    """What `--help` loads, as the module main sees it."""
    import main

    loaded = [v.__name__ for v in vars(main).values() if type(v) is types.ModuleType]
    assert "cnn.predict" in loaded
    assert not {"orbax", "PIL", "matplotlib"} & {x.split(".")[0] for x in loaded}
