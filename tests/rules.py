"""The rules of the house as functions of a file: each yields what breaks it.

A rule takes the file's name from the root of the repository, its text and its tree.
"""

import ast
import re

# From above to below; a module imports what stands below it or on its own level.
LEVELS = [
    ["main", "configs"],
    ["cnn.config"],
    [f"cnn.{m}" for m in "sweep visualize train run report evaluate predict".split()]
    + [f"cnn.{m}" for m in "convert export describe records program memory".split()],
    [f"cnn.{m}" for m in "epoch steps task transfer weights checkpoint".split()],
    [f"cnn.{m}" for m in "state models optimizer averaging muon schedules".split()],
    [f"cnn.{m}" for m in "data augment losses metrics ops devices progress".split()]
    + [f"cnn.{m}" for m in "keys interrupt workdir manifest options errors".split()]
    + [f"cnn.{m}" for m in "liveness jaxprs profiling".split()],
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}
HEAVY = {"orbax", "tensorflow_datasets", "tensorflow", "matplotlib", "PIL", "optuna"}
HEAVY |= {"jinja2", "sklearn", "tensorboardX", "safetensors", "torch"}
PURE = r"cnn/(ops|models|augment)/.*|cnn/(losses|metrics|steps)\.py"
# Parameters come before the key in what jax.grad differentiates by its first argument.
DIFFERENTIATED = {"compute_loss"}


def name_module(name):
    """Return the module of a file's name."""
    parts = name.removesuffix(".py").removesuffix("/__init__")
    return parts.replace("/", ".")


def list_imports(tree):
    """List what is imported when a program runs, as full names, packages among them."""
    typing_only = _find_typing_only(tree)
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole
            if node.module != "cnn" and not _are_modules(node):
                found.add(node.module)
    return found


def _find_typing_only(tree):
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }


def _are_modules(node):
    # `from cnn.data import decode` means cnn.data.decode, not what the package makes.
    inside = [f"cnn.{m}" for m in "data ops models augment visualize sweep".split()]
    return node.module in inside and all(a.name.islower() for a in node.names)


def find_level(module):
    """Return the level of a module, None for one that is none of ours."""
    parts = module.split(".")
    name = parts[0] if parts[0] in ("main", "configs") else ".".join(parts[:2])
    return LEVEL.get(name)


def imports_go_down(name, text, tree):
    """Imports go down; config is for main alone."""
    module = name_module(name)
    if module == "cnn":
        return
    level = find_level(module)
    if level is None:
        yield f"{module} has no level; give it one in tests/rules.py"
        return
    for target in sorted(list_imports(tree)):
        below = find_level(target)
        if target.split(".")[0] == "cnn" and below is not None and below < level:
            yield f"imports {target}, which stands above it"


def heavy_modules_in_functions(name, text, tree):
    """What is slow to import is imported where it is used; orbax by checkpoint."""
    inner = _find_typing_only(tree) | {
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
        if "orbax" in packages and name != "cnn/checkpoint.py":
            yield f"line {node.lineno}: orbax is for cnn/checkpoint.py alone"


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
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("np.random"):
            if ast.unparse(node) in ("np.random", "numpy.random"):
                yield f"line {node.lineno}: np.random"
    for target in list_imports(tree):
        if target.split(".")[0] in (
            "logging",
            "time",
            "os",
            "sys",
            "random",
            "pathlib",
        ):
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


def files_are_short(name, text, tree):
    """A file has at most 250 lines; where more is stated, that many."""
    if (count := len(text.splitlines())) > 250:
        yield f"{count} lines"


def nothing_is_left_undone(name, text, tree):
    """No notes to oneself."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"line {number}: {line.strip()}"


def options_are_declared(name, text, tree):
    """Every option is made by option(), with a default and a help text."""
    for cls in ast.walk(tree):
        if not isinstance(cls, ast.ClassDef) or not cls.name.endswith("Options"):
            continue
        for node in cls.body:
            if not isinstance(node, ast.AnnAssign):
                continue
            call = node.value
            made = isinstance(call, ast.Call) and ast.unparse(call.func) == "option"
            if not made or len(call.args) < 2 or not _has_text(call.args[1]):
                yield f"{cls.name}.{ast.unparse(node.target)} lacks option(…, help)"


def _has_text(node):
    return isinstance(node, ast.JoinedStr) or bool(getattr(node, "value", ""))


def no_pmap(name, text, tree):
    """One mesh and jit, never pmap."""
    if re.search(r"\bpmap\(", text):
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
