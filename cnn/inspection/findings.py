"""What an inspection finds, from what was seen of each image: counts and pairs.

Positions count through all parts, the training set first. `exact` pairs have equal
pixels once decoded (`bytes`: the files are equal too), `near` ones are likely copies.
"""

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from cnn.data import labels as labelled
from cnn.data import statistics
from cnn.inspection import likeness
from cnn.inspection.read import Look
from cnn.text import show_line


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that are alike.

    Attributes:
        one: position; of a training image if one of them is.
        other: position.
        kind: `bytes`, `pixels` or `near`.
        distance: bits of the hashes that differ, of a near pair.
        similarity: of details, up to 1; 1 of an exact pair.
    """

    one: int
    other: int
    kind: str
    distance: int = 0
    similarity: float = 1.0


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that was found.

    Attributes:
        class_names: one for each label.
        parts: of the image at each position, object array [N].
        names: likewise.
        labels: as of `cnn.data.labels`.
        looks: what was seen of each.
        pairs: exact ones first, then near ones, the most alike first.
        scaling: mean and std by channel of each part, in 0..1.
        flat: positions of images that show next to nothing and were compared for
            equality alone.
        crowded: of the near search, see `likeness.Near`.
    """

    class_names: tuple[str, ...]
    parts: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    looks: Sequence[Look]
    pairs: Sequence[Pair]
    scaling: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
    flat: Collection[int]
    crowded: int

    @property
    def unreadable(self) -> list[int]:
        """Return the positions of images that cannot be read."""
        return [i for i, look in enumerate(self.looks) if look.problem]

    @property
    def damaged(self) -> list[int]:
        """Return the positions of images whose metadata are damaged."""
        return [i for i, look in enumerate(self.looks) if look.damaged]

    @property
    def readable(self) -> np.ndarray:
        """Return which images can be read, bool [N]."""
        return np.array([not look.problem for look in self.looks], bool)

    def crosses_parts(self, pair: Pair) -> bool:
        """Return whether a pair's images are of two parts: a leak."""
        return self.parts[pair.one] != self.parts[pair.other]

    def crosses_classes(self, pair: Pair) -> bool:
        """Return whether a pair's images are of two classes: a conflict."""
        return bool(np.any(self.labels[pair.one] != self.labels[pair.other]))

    def name_class(self, position: int) -> str:
        """Return the name of an image's class, or of all its labels."""
        (label,) = labelled.to_lists(self.labels[[position]])
        return labelled.write(label, self.class_names) or labelled.NONE

    def count_leaked(self) -> dict[str, int]:
        """Count the images of each other part that are alike to a training image."""
        first = np.arange(len(self.parts))  # of images with equal pixels
        for pair in self.pairs:
            if pair.kind != "near":
                first[pair.other] = pair.one
        trained = self.parts == "train"
        known = set(first[trained & self.readable].tolist())
        linked = set(known)
        for pair in self.pairs:
            ends = {int(first[pair.one]), int(first[pair.other])}
            linked |= ends if ends & known else set()
        found = self.parts[~trained & np.isin(first, list(linked))]
        return dict(collections.Counter(found.tolist()))

    def show(self, position: int) -> str:
        """Name an image with its class, and its part if that is not in its name."""
        name, part = str(self.names[position]), self.parts[position]
        label = self.name_class(position)
        where = "" if name.startswith(f"{part}/") else f"{part}: "
        return show_line(f"{where}{name} ({label})")


def find_pairs(
    looks: Sequence[Look], parts: np.ndarray, labels: np.ndarray
) -> tuple[list[Pair], set[int], int]:
    """Find exact and near duplicates.

    Returns:
        Pairs, positions of flat images, and how many are crowded: as `Findings`.
    """
    groups: dict[bytes, list[int]] = collections.defaultdict(list)
    for position, look in enumerate(looks):
        if not look.problem:
            groups[look.pixels].append(position)
    exact = [pair for group in groups.values() for pair in _pair_up(looks, group)]
    if not groups:
        return [], set(), 0
    members = list(groups.values())
    thumbs = np.stack([looks[group[0]].thumb for group in members])
    sides = np.array([min(looks[group[0]].size) for group in members])
    is_flat = likeness.find_flat(thumbs)
    (chosen,) = np.nonzero(~is_flat)
    found = likeness.find_near(thumbs[chosen], sides[chosen])
    near = []
    for (i, j), *numbers in zip(
        chosen[found.pairs], found.distances, found.similarities, strict=True
    ):
        ends = (_choose_each(members[k], parts, labels) for k in (i, j))
        near += _pair_near(*ends, *numbers)
    near.sort(key=lambda pair: (-pair.similarity, pair.one, pair.other))
    flat = {x for k in np.flatnonzero(is_flat) for x in members[k]}
    return exact + near, flat, found.crowded


def _pair_up(looks: Sequence[Look], group: Sequence[int]) -> list[Pair]:
    """Pair the first of images with equal pixels with each other one."""
    first, *others = group
    content = looks[first].content
    kinds = [
        "bytes" if looks[x].content == content != b"" else "pixels" for x in others
    ]
    return [Pair(first, x, kind) for x, kind in zip(others, kinds, strict=True)]


def _choose_each(
    group: Sequence[int], parts: np.ndarray, labels: np.ndarray
) -> list[int]:
    """Choose one of equal images for each part and class that they are in."""
    keys = {(parts[x], labels[x].tobytes()): x for x in reversed(group)}
    return list(keys.values())


def _pair_near(
    ones: Sequence[int], others: Sequence[int], distance: int, similarity: float
) -> list[Pair]:
    numbers = int(distance), min(0.999, round(float(similarity), 3))  # 1 is exact
    return [Pair(min(x, y), max(x, y), "near", *numbers) for x in ones for y in others]


def describe(findings: Findings) -> dict[str, Any]:
    """Write everything that was found as JSON: `inspection` of `dataset.json`."""
    good = [look for look in findings.looks if not look.problem]
    sizes = collections.Counter(look.size for look in good)
    ratios = [width / height for height, width in sizes]
    return {
        "parts": {part: _describe_part(findings, part) for part in findings.scaling},
        "sizes": [
            {"width": width, "height": height, "count": count}
            for (height, width), count in sizes.most_common()
        ],
        "aspect_ratio": {"least": min(ratios), "most": max(ratios)} if good else {},
        "modes": dict(collections.Counter(x.mode for x in good).most_common()),
        "formats": dict(
            collections.Counter(x.format for x in good if x.format).most_common()
        ),
        "unreadable": [
            _describe_image(findings, x) | {"reason": findings.looks[x].problem}
            for x in findings.unreadable
        ],
        "damaged": [_describe_image(findings, x) for x in findings.damaged],
        "pairs": [
            {
                "kind": pair.kind,
                "one": _describe_image(findings, pair.one),
                "other": _describe_image(findings, pair.other),
                "leak": bool(findings.crosses_parts(pair)),
                "conflict": findings.crosses_classes(pair),
                "hash_distance": pair.distance,
                "similarity": pair.similarity,
            }
            for pair in findings.pairs
        ],
        "flat": [_describe_image(findings, x) for x in sorted(findings.flat)],
        "crowded": findings.crowded,
    }


def count_classes(findings: Findings, part: str) -> np.ndarray:
    """Count the readable images of each class in a part, [K]."""
    labels = findings.labels[(findings.parts == part) & findings.readable]
    return labelled.count_classes(labels, len(findings.class_names))


def _describe_part(findings: Findings, part: str) -> dict[str, Any]:
    counts = count_classes(findings, part)
    mean, std = findings.scaling[part]
    least = int(counts.min())
    return {
        "count": int(((findings.parts == part) & findings.readable).sum()),
        "classes": {
            name: int(n) for name, n in zip(findings.class_names, counts, strict=True)
        },
        "imbalance": float(counts.max() / least) if least else None,
        "mean": list(mean),
        "std": list(std),
    }


def _describe_image(findings: Findings, position: int) -> dict[str, str]:
    return {
        "part": str(findings.parts[position]),
        "name": str(findings.names[position]),
        "class": findings.name_class(position),
    }


def summarise_counts(
    counts: Mapping[int, np.ndarray], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and std by channel, as `--scaling=standardize` takes them.

    Args:
        counts: of `read_part`.
        channels: of the images as training has them; 3: grey ones are repeated.
    """
    total = np.zeros((channels, 256), np.int64)
    for found in counts.values():
        total += found
    return statistics.summarise_histograms(total) if total.any() else ((), ())
