"""What was found in words: a line a finding, with what to do about it."""

import collections
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnn.data.options import DataOptions
from cnn.inspection import likeness
from cnn.inspection.findings import Findings, Pair, count_classes
from cnn.option import format_value
from cnn.text import show_line

_SHOWN = 10
_UNEVEN = 3  # times that the largest class has the images of the smallest
KINDS = {"bytes": "same file", "pixels": "same pixels", "near": "near"}
# What pairs are found to be: heading, remedy, and which pairs those are.
CASES: dict[str, tuple[str, Callable[[Findings, Pair], bool]]] = {
    "leak": (
        "remove one of each from its part, or the test measures what was memorised",
        Findings.crosses_parts,
    ),
    "conflict": (
        "find out which class is right, and remove or move the other",
        Findings.crosses_classes,
    ),
    "repeated": (
        "remove all but one, or they count several times",
        lambda findings, pair: (
            not findings.crosses_parts(pair) and not findings.crosses_classes(pair)
        ),
    ),
}
_TITLES = {
    "leak": "between parts",
    "conflict": "under two classes",
    "repeated": "within a class of a part",
}


def list_lines(
    findings: Findings, described: dict[str, Any], options: DataOptions
) -> list[str]:
    """Write the summary.

    Args:
        described: of `findings.describe`.
        options: that the data were listed by.
    """
    sizes = ", ".join(f"{x['count']:,} {n}" for n, x in described["parts"].items())
    lines = [
        f"dataset   {options.dataset}: {sizes} images of "
        f"{len(findings.class_names)} classes"
    ]
    lines += _list_classes(findings)
    lines += _list_forms(described, options)
    lines += [*_list_unreadable(findings), *_list_damaged(findings)]
    for case in CASES:
        lines += _list_case(findings, case)
    return lines + _list_limits(findings)


def select_pairs(findings: Findings, case: str) -> list[Pair]:
    """Return the pairs of a case in the order that they are worth a look.

    The surest is first. Of many copies of one image a pair comes before any second one,
    and what shows next to nothing is last.
    """
    belongs = CASES[case][1]
    pairs = [pair for pair in findings.pairs if belongs(findings, pair)]
    seen = collections.defaultdict(itertools.count)
    ranks = {pair: next(seen[pair.one]) for pair in pairs}
    return sorted(pairs, key=lambda pair: (pair.one in findings.flat, ranks[pair]))


def describe_pair(findings: Findings, pair: Pair) -> str:
    """Name both images of a pair, and how they are alike."""
    how = KINDS[pair.kind]
    if pair.kind == "near":
        how += f", {pair.similarity:.3f}"
    return f"{findings.show(pair.one)} ~ {findings.show(pair.other)} [{how}]"


def _list_classes(findings: Findings) -> list[str]:
    lines = []
    for part in findings.scaling:
        counts = count_classes(findings, part)
        names = [show_line(name) for name in findings.class_names]
        least, most = int(counts.argmin()), int(counts.argmax())
        line = f"classes   {part}: {counts[least]:,}"
        line += f" to {counts[most]:,}" if counts[least] < counts[most] else ""
        line += " images a class"
        if not counts[least]:
            empty = [name for name, n in zip(names, counts, strict=True) if not n]
            line += f"; none of {_shorten(empty)}"
            line += ": training needs some" if part == "train" else ""
        elif counts[most] >= _UNEVEN * counts[least]:
            line += (
                f", {counts[most] / counts[least]:.1f} times as many of {names[most]} "
                f"as of {names[least]}"
            )
            if part == "train":
                line += ": add to the small ones, or --class_weights=balanced or"
                line += " --sampling=balanced"
        lines.append(line)
    return lines


def _list_forms(described: dict[str, Any], options: DataOptions) -> list[str]:
    """Write sizes, colours and scaling."""
    if not described["sizes"]:
        return []
    sizes = [(x["width"], x["height"]) for x in described["sizes"]]
    least, most = (f(sizes, key=np.prod) for f in (min, max))
    line = f"sizes     {least[0]}x{least[1]}"
    if len(sizes) > 1:
        ratio = described["aspect_ratio"]
        line = (
            f"sizes     {len(sizes):,}, from {least[0]}x{least[1]} to "
            f"{most[0]}x{most[1]} (width x height), width over height "
            f"{ratio['least']:.2g} to {ratio['most']:.2g}"
        )
        line += "" if options.image_size else ": training needs --image_size"
    lines = [line]
    modes = ", ".join(f"{n} {count:,}" for n, count in described["modes"].items())
    formats = ", ".join(f"{n} {x:,}" for n, x in described["formats"].items())
    lines.append(f"colours   {modes}" + (f"; files {formats}" if formats else ""))
    for part, found in described["parts"].items():
        mean, std = (
            format_value([round(x, 4) for x in found[name]]) for name in ("mean", "std")
        )
        taken = " (what --scaling=standardize takes)" if part == "train" else ""
        if mean:
            lines.append(f"scaling   {part}: mean {mean}, std {std}{taken}")
    return lines


def _list_unreadable(findings: Findings) -> list[str]:
    found = findings.unreadable
    if not found:
        return []
    names = [f"{findings.show(x)}: {findings.looks[x].problem}" for x in found]
    return [
        f"bad       {len(found):,} images cannot be read: mend or delete them, or "
        "leave them out with --bad_images=skip",
        *_indent(names),
    ]


def _list_damaged(findings: Findings) -> list[str]:
    found = findings.damaged
    if not found:
        return []
    return [
        f"damaged   {len(found):,} images have damaged metadata and are read without "
        "them, EXIF's rotation included",
        *_indent([findings.show(x) for x in found]),
    ]


def _list_case(findings: Findings, case: str) -> list[str]:
    pairs, remedy = select_pairs(findings, case), CASES[case][0]
    exact = sum(pair.kind != "near" for pair in pairs)
    line = f"{case:10}{exact:,} exact and {len(pairs) - exact:,} near pairs"
    line += f" {_TITLES[case]}"
    flat = sum(pair.one in findings.flat for pair in pairs)
    line += f", {flat:,} of them of flat images" if flat else ""
    if not pairs:
        return [line]
    if case == "leak":
        counts = findings.count_leaked()
        told = [f"{n:,} of the {part} images" for part, n in counts.items() if n]
        line += f" ({' and '.join(told)} have a copy in train)" if told else ""
    names = [describe_pair(findings, pair) for pair in pairs]
    return [f"{line}: {remedy}", *_indent(names)]


def _list_limits(findings: Findings) -> list[str]:
    """Say what was not looked for."""
    lines = []
    if findings.flat:
        lines.append(
            f"flat      {len(findings.flat):,} images show next to nothing (one "
            "colour, or a slope): compared for equal pixels alone"
        )
    if findings.crowded:
        lines.append(
            f"crowded   {findings.crowded:,} images look like so many others at a "
            f"glance that only the most alike were compared ({likeness.MOST} or fewer)"
        )
    return lines


def _indent(names: Sequence[str]) -> list[str]:
    """Return the first few names, a line each, and how many more there are."""
    lines = [f"          {name}" for name in names[:_SHOWN]]
    more = len(names) - _SHOWN
    return lines + ([f"          … {more:,} more in dataset.json"] if more > 0 else [])


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
