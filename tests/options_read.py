"""Which options code reads, by its syntax tree: `(group, name)` of every read.

A read is an attribute of something that is known to be that group: annotated with its
class, made by it, taken from a Config (`config.data`), from another known holder
(`structure.augment`, `rule.options`), or a name that was assigned one of these.
"""

import ast
import dataclasses

from cnn.config import Config, list_fields
from cnn.optim.optimizer import Rule
from cnn.training.setup import Setup
from cnn.training.steps import Structure

GROUPS = {field.name: field.type for field in dataclasses.fields(Config)}
OWNER = {
    field.name: group.__name__
    for group in GROUPS.values()
    for field in dataclasses.fields(group)
}
TRACED = {n for n, f in list_fields().items() if f.metadata["kind"] != "static"}


def _list_types(holder):
    """Return the class of each attribute of a dataclass, by name."""
    fields = dataclasses.fields(holder)
    return {field.name: getattr(field.type, "__name__", "") for field in fields}


# What is found behind an attribute, by the class of what has it.
HOLDERS = {cls.__name__: _list_types(cls) for cls in (Config, Structure, Rule, Setup)}
# Whatever has a config, numbers, a structure or a rule has these.
BY_NAME = {
    "config": "Config",
    "_config": "Config",
    "numbers": "Numbers",
    "structure": "Structure",
    "rule": "Rule",
}
KEEP_TYPE = {"make_static", "change", "with_numbers"}


def find_reads(trees):
    """Return `(class of the group or Numbers, option)` for each read."""
    reads = set()
    for tree in trees:
        _Module(reads).visit_all(tree)
    return reads


def find_unread(trees):
    """Return the options that nothing reads from their own group or the numbers."""
    reads = find_reads(trees)
    return {
        name
        for name, owner in OWNER.items()
        if (owner, name) not in reads
        and not (name in TRACED and ("Numbers", name) in reads)
    }


class _Module:
    """Follows the known types of names through the functions of a module."""

    def __init__(self, reads):
        self.reads, self.own = reads, {}

    def visit_all(self, tree):
        for node in ast.walk(tree):  # what methods find behind self
            if isinstance(node, ast.ClassDef):
                self.visit_class(node)
        self.visit_body(tree.body, {})

    def visit_class(self, node):
        known = {node.name: node.name} if node.name.endswith("Options") else {}
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                self.own[f"self.{item.target.id}"] = _annotated(item.annotation)
            if isinstance(item, ast.FunctionDef):
                local = self.arguments(item, {"self": known.get(node.name, "")})
                for inner in ast.walk(item):
                    if isinstance(inner, ast.Assign):
                        self.assign(inner, local, self.own)

    def arguments(self, function, outer):
        known = dict(outer)
        everything = function.args.posonlyargs + function.args.args
        for argument in everything + function.args.kwonlyargs:
            known[argument.arg] = _annotated(argument.annotation) or known.get(
                argument.arg if argument.arg == "self" else "", ""
            )
        return known

    def visit_body(self, body, known, owner=""):
        for node in body:
            if isinstance(node, ast.ClassDef):
                is_group = node.name.endswith("Options") or node.name == "Config"
                self.visit_body(node.body, dict(known), node.name if is_group else "")
            elif isinstance(node, ast.FunctionDef):
                inner = self.arguments(node, known | {"self": owner})
                self.visit_body(node.body, inner)
            else:
                self.visit_statement(node, known)

    def visit_statement(self, node, known):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Assign):
                self.assign(inner, known, known)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Load):
                self.note(self.type_of(inner.value, known), inner.attr)
            if isinstance(inner, ast.Call) and _called(inner) == "getattr":
                group = self.type_of(inner.args[0], known)
                for text in self.texts(node, inner.args[1]):
                    self.note(group, text)
            if isinstance(inner, ast.FunctionDef):
                self.visit_body(inner.body, self.arguments(inner, known))

    def texts(self, node, argument):
        if isinstance(argument, ast.Constant):
            return [argument.value]
        return [x.value for x in ast.walk(node) if isinstance(x, ast.Constant)]

    def note(self, group, name):
        if group == "Numbers" and name in TRACED or OWNER.get(name) == group:
            self.reads.add((group, name))

    def assign(self, node, known, into):
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if found := self.type_of(value, known):
                    into[ast.unparse(name)] = found

    def type_of(self, node, known):
        text = ast.unparse(node)
        if known.get(text) or self.own.get(text):
            return known.get(text) or self.own[text]
        if isinstance(node, ast.Attribute):
            holder = self.type_of(node.value, known)
            if found := HOLDERS.get(holder, {}).get(node.attr):
                return found
            return BY_NAME.get(node.attr, "")
        if isinstance(node, ast.Call):
            called = _called(node)
            if called == "make_numbers":
                return "Numbers"
            if called in KEEP_TYPE:
                return self.type_of(node.func.value, known)
            if called in ("replace", "read_group") and node.args:
                return self.type_of(node.args[0], known) or ast.unparse(node.args[0])
            if called in ("make_config", "Config"):
                return "Config"
            return called if called.endswith("Options") else ""
        return ""


def _called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _annotated(annotation):
    return ast.unparse(annotation).strip('"') if annotation is not None else ""
