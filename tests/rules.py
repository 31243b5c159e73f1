"""The rules of the house as functions of a file: each yields what breaks it.

A rule takes the file's name from the root of the repository, its text and its tree.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The rooms from above to below; a room imports what stands below it.
LEVELS = [
    ["main", "configs"],
    ["from_python"],
    ["command"],
    ["ledger"],
    ["sweep", "inspection", "find_rate", "replay"],
    ["visualize", "describe", "average"],
    ["train", "evaluation", "predict", "loaded"],
    ["transfer"],
    ["weights"],
    ["training"],
    ["optim", "checkpoints"],
    ["models", "augment", "data"],
    ["ops", "runtime"],
    ["ground"],
]
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
# What everything may import: config, and the options that it is made of.
GROUND = [
    "cnn.place",
    "cnn.text",
    "cnn.errors",
    "cnn.keys",
    "cnn.own_code",
    "cnn.option",
    "cnn.condition",
]
GROUND += ["options", "cnn.config"]
HEAVY = {"orbax", "tensorflow_datasets", "tensorflow", "matplotlib", "PIL", "optuna"}
HEAVY |= {"jinja2", "sklearn", "tensorboardX", "safetensors", "torch"}
HEAVY |= {"onnx", "onnxruntime", "wandb", "mlflow", "trackio"}
PURE = (
    r"cnn/(ops|models|augment|optim)/.*|"
    r"cnn/training/(losses|distillation|metrics|steps|state|examples)\.py"
)
# Parameters come before the key in what jax.grad differentiates by its first argument.
DIFFERENTIATED = {"compute_loss"}


def name_module(name):
    """Return the module of a file's name."""
    parts = name.removesuffix(".py").removesuffix("/__init__")
    return parts.replace("/", ".")


def list_imports(tree):
    """List what is imported, as full names: `cnn.data.decode`, `cnn.errors`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if _is_module(name)}
            found |= modules
            if modules != whole:
                found.add(node.module)
    return found


def _is_module(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def find_room(module):
    """Return the room of a module of ours: `training`, `ground`, `main`."""
    parts = module.split(".")
    if module in ("cnn", "cnn.__main__"):  # from Python, from the command line
        return "main"
    if parts[-1] == "options" or module in GROUND:
        return "ground"
    return parts[1] if parts[0] == "cnn" else parts[0]


def _find_floor(module):
    """Return how high a module of the ground stands."""
    return GROUND.index("options" if module.endswith(".options") else module)


def imports_go_down(name, text, tree):
    """Imports go down, room by room; ops and runtime need no config."""
    module = name_module(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: a relative import"
            return
    here = find_room(module)
    if here == "main" and module != "main":
        return
    if here not in LEVEL:
        yield f"{module} has no level; give {here} one in tests/rules.py"
        return
    for target in sorted(list_imports(tree)):
        there = find_room(target)
        if target == "cnn.config" and here in ("ops", "runtime", "models", "data"):
            yield f"imports {target}: take the group that is read"
        if target.split(".")[0] not in ("cnn", "main", "configs") or target == "cnn":
            continue
        if here == there == "ground":
            if _find_floor(target) > _find_floor(module):
                yield f"imports {target}, which stands above it"
        elif there != here and LEVEL[there] <= LEVEL[here]:
            yield f"imports {target}, which stands above it or beside it"


def nothing_is_imported_for_types_alone(name, text, tree):
    """A type of ours that cannot be imported plainly is in the wrong room."""
    if name == "cnn/__init__.py":  # which must import nothing before main.py does
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for target in list_imports(node):
                if target.split(".")[0] == "cnn":
                    yield f"line {node.lineno}: {target}"


def heavy_modules_in_functions(name, text, tree):
    """What is slow to import is imported where it is used; orbax by checkpoint."""
    inner = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    } | {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        is_plain = isinstance(node, ast.Import)
        names = [a.name for a in node.names] if is_plain else [node.module or ""]
        packages = {n.split(".")[0] for n in names}
        if packages & HEAVY and id(node) not in inner:
            yield f"line {node.lineno}: {names[0]} belongs into the function"
        if "orbax" in packages and name != "cnn/checkpoints/checkpoint.py":
            yield f"line {node.lineno}: orbax is for checkpoint.py alone"


def pure_below_the_modes(name, text, tree):
    """Operators, models, losses, metrics and steps have no effects."""
    if not re.fullmatch(PURE, name):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("print", "open", "input"):
                yield f"line {node.lineno}: {node.func.id}"
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global"
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.debug.print":
            yield f"line {node.lineno}: jax.debug.print"
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("np.random"):
            if ast.unparse(node) in ("np.random", "numpy.random"):
                yield f"line {node.lineno}: np.random"
    effects = {"logging", "absl", "time", "os", "sys", "random", "pathlib"}
    for target in list_imports(tree):
        if target.split(".")[0] in effects or target == "cnn.runtime.terminal":
            yield f"imports {target}"


def files_have_names(name, text, tree):
    """A helper lives with its user."""
    for part in re.split(r"[/.]", name):
        if part in ("utils", "util", "common", "helpers", "helper", "misc"):
            yield f"{part} says nothing"


def _list_public(tree):
    for node in tree.body:
        is_named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not is_named or node.name.startswith("_"):
            continue
        yield node.name, node
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            is_function = isinstance(inner, ast.FunctionDef)
            if is_function and (inner.name[0] != "_" or inner.name == "__call__"):
                yield f"{node.name}.{inner.name}", inner


def public_names_are_described(name, text, tree):
    """Modules, public functions, classes and methods have a docstring."""
    if not ast.get_docstring(tree):
        yield "the module has no docstring"
    for label, node in _list_public(tree):
        if not ast.get_docstring(node):
            yield f"{label} has no docstring"


def _list_functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _list_arguments(function):
    names = [a.arg for a in function.args.posonlyargs + function.args.args]
    return [name for name in names if name not in ("self", "cls")]


def key_comes_first(name, text, tree):
    """A function that draws takes its key first."""
    for function in _list_functions(tree):
        names = _list_arguments(function)
        names += [a.arg for a in function.args.kwonlyargs]
        is_public = function.name[0] != "_" and function.name not in DIFFERENTIATED
        if is_public and "key" in names[1:]:
            yield f"{function.name}: key is not the first argument"


def words_of_the_house(name, text, tree):
    """It is key, never rng."""
    for function in _list_functions(tree):
        for argument in _list_arguments(function):
            if re.fullmatch(r"(prng_?key|rng\w*|\w*_rng)", argument):
                yield f"{function.name}: {argument} is called key here"


def functions_are_short(name, text, tree):
    """A function has at most 50 lines, docstring apart."""
    for function in _list_functions(tree):
        lines = function.end_lineno - function.body[0].lineno + 1
        if ast.get_docstring(function):
            lines = function.end_lineno - function.body[0].end_lineno
        if lines > 50:
            yield f"{function.name} has {lines} lines"


def functions_take_few_things(name, text, tree):
    """A function has at most 8 parameters."""
    for function in _list_functions(tree):
        rest = [function.args.vararg, function.args.kwarg, *function.args.kwonlyargs]
        count = len(_list_arguments(function)) + len([x for x in rest if x])
        if count > 8:
            yield f"{function.name} has {count} parameters"


def modules_are_in_rooms(name, text, tree):
    """At the top of cnn/ stand the ground and the modes of one file, nothing else."""
    top = "__init__ __main__ config option condition errors keys own_code place text "
    top += "train evaluate predict describe find_rate loaded average replay command "
    top += "from_python"
    if re.fullmatch(r"cnn/\w+\.py", name) and name[4:-3] not in top.split():
        yield f"{name} belongs into a room"


def nothing_is_left_undone(name, text, tree):
    """No notes to oneself."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"line {number}: {line.strip()}"


def options_are_declared(name, text, tree):
    """Every option is made by option() or its kin, with a help text."""
    for cls in ast.walk(tree):
        if not isinstance(cls, ast.ClassDef) or not cls.name.endswith("Options"):
            continue
        for node in cls.body:
            is_field = isinstance(node, ast.AnnAssign)
            if not is_field or "ClassVar" in ast.unparse(node.annotation):
                continue
            call = node.value
            places = {"option": 1, "free_option": 1, "code_option": 1, "strength": 0}
            place = places.get(
                ast.unparse(call.func) if isinstance(call, ast.Call) else "", None
            )
            texts = [] if place is None else call.args[place : place + 1]
            if not any(map(_has_text, texts)):
                yield f"{cls.name}.{ast.unparse(node.target)} lacks a help text"


def _has_text(node):
    return isinstance(node, ast.JoinedStr) or bool(getattr(node, "value", ""))


def no_pmap(name, text, tree):
    """One mesh and jit, never pmap."""
    if re.search(r"\bpmap\b", text):
        yield "pmap"


def nothing_is_imported_by_name(name, text, tree):
    """No code is chosen by a string from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "__import__", "importlib.import_module"):
                yield f"line {node.lineno}: {called}"


RULES = {
    name: value
    for name, value in list(globals().items())
    if hasattr(value, "__code__")
    and value.__code__.co_varnames[:3] == ("name", "text", "tree")
}
