"""Near duplicates: images that show the same picture, though not the same pixels.

Copies that were saved again, resized, cropped a little, brightened or made grey are
found in two steps. Perceptual hashes, 64 bits of a grey thumbnail, name pairs that
may be alike: all pairs are compared, block by block. Then the thumbnails of each such
pair are laid over each other as well as moving and stretching allow, and the
correlation of their details decides. Hashes of everyday scenes collide (a sea under a
sky); their details do not.

Thumbnails are uint8 [N, 32, 32]. Nothing here depends on the order of threads.

Source of the hash: Zauner 2010, Implementation and Benchmarking of Perceptual Image
Hash Functions, section 3.2.1 (DCT), https://www.phash.org/docs/pubs/thesis_zauner.pdf
"""

import functools
from typing import NamedTuple

import numpy as np

from cnn.data import decode

SIDE = 32
# Of the 64 bits, how many may differ. Crops by a twentieth at each side change 10 in
# the median and 14 or fewer in 95 % of 1,500 photographs; all else at most 8.
RADIUS = 14
# With so many of the nearest each image is compared, and with fewer where these are too
# many pairs in all: thousands that show one thing would be millions of pairs.
MOST, _PAIRS_AN_IMAGE, _LEAST_PAIRS = 50, 5, 100_000
# The correlation from which a pair is called alike. Of 1,500 photographs, each copied
# in ten ways, all but two in a thousand reach it; of pairs of CIFAR-10 between 0.90 and
# 0.92 about one in five shows two different scenes, from 0.93 on hardly any.
SIMILARITY = 0.93
# What remains after the first few steps of the alignment is worth more of them.
_PROMISING = 0.6
# Standard deviation of details, in grey levels, below which an image shows nothing.
FLAT = 1.5
# Of images with fewer pixels a side different ones look alike once they are stretched
# (digits of 8x8): they are compared as they lie.
TINY, TINY_SIMILARITY = 16, 0.99
_ZOOM = 0.9  # the middle that is hashed too, for crops
_MIDDLE = 0.8  # what is compared: near edges details lack half of what is around
_LIMIT = 0.25  # of shifts and stretches, in halves of the image
_BLOCK_BYTES, _PAIRS = 2**22, 512


class Near(NamedTuple):
    """Pairs of images that are near duplicates.

    Attributes:
        pairs: int64 [P, 2], each of i < j, sorted.
        distances: bits of the hashes that differ [P].
        similarities: correlation of details [P], up to 1.
        crowded: how many images have hashes like those of more than `MOST` others.
    """

    pairs: np.ndarray
    distances: np.ndarray
    similarities: np.ndarray
    crowded: int


def find_flat(thumbs: np.ndarray) -> np.ndarray:
    """Return which images show next to nothing, as those of one colour: bool [N]."""
    flat = np.empty(len(thumbs), bool)
    for start in range(0, len(thumbs), _PAIRS):
        part = slice(start, start + _PAIRS)
        flat[part] = _get_details(thumbs[part]).std(axis=(1, 2)) < FLAT
    return flat


def find_near(thumbs: np.ndarray, sides: np.ndarray) -> Near:
    """Find near duplicates among images that are not flat.

    Args:
        thumbs: uint8 [N, 32, 32].
        sides: pixels of each image's shorter side [N].
    """
    keys, distances, crowded = _search(thumbs)
    pairs = np.stack(np.divmod(keys, max(1, len(thumbs))), axis=1)
    tiny = sides[pairs].min(axis=1, initial=TINY) < TINY
    similarities = compare(thumbs, pairs, ~tiny)
    kept = similarities >= np.where(tiny, TINY_SIMILARITY, SIMILARITY)
    return Near(pairs[kept], distances[kept], similarities[kept], crowded)


def compute_hashes(thumbs: np.ndarray, zoom: float = 1.0) -> np.ndarray:
    """Compute the perceptual hash of images, uint64 [N].

    Bits say which of the 64 lowest frequencies are above their median.

    Args:
        zoom: the share of height and width, in the middle, that is hashed.
    """
    transform = _make_cosines() @ _make_zoom(zoom)
    hashes = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), _PAIRS):
        part = thumbs[start : start + _PAIRS].astype(np.float32)
        waves = (transform @ part @ transform.T).reshape(len(part), 64)
        bits = waves > np.median(waves[:, 1:], axis=1, keepdims=True)
        packed = np.ascontiguousarray(np.packbits(bits, axis=1))
        hashes[start : start + _PAIRS] = packed.view(np.uint64)[:, 0]
    return hashes


def compare(
    thumbs: np.ndarray, pairs: np.ndarray, is_aligned: np.ndarray
) -> np.ndarray:
    """Compute how much alike the details of pairs are.

    Args:
        pairs: [P, 2].
        is_aligned: which pairs are laid over each other as well as possible [P]; the
            others are compared as they lie.

    Returns:
        Correlations, float32 [P]; those of pairs that are not promising are those
        of an alignment that was given up.
    """

    def compare_some(start: int) -> np.ndarray:
        one, other = pairs[start : start + _PAIRS].T
        return _compare(thumbs[one], thumbs[other], is_aligned[start : start + _PAIRS])

    found = decode.call_all(compare_some, range(0, len(pairs), _PAIRS), 1)
    return np.concatenate([np.empty(0, np.float32), *found])


def _search(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Find pairs whose hashes are alike.

    Returns:
        i * N + j of each pair i < j, ascending, bits that differ, and of how many
        images not all pairs are among these.
    """
    count = len(thumbs)
    whole = compute_hashes(thumbs)
    keys, distances = np.empty(0, np.int64), np.empty(0, np.uint8)
    is_crowded = np.zeros(count, bool)
    rows = max(1, _BLOCK_BYTES // (8 * max(1, count)))
    for other in (whole, compute_hashes(thumbs, _ZOOM)):
        find = functools.partial(_find_alike, whole, other, rows)
        found = decode.call_all(find, range(0, count, rows), 1)
        keys = np.concatenate([keys, *(block[0] for block in found)])
        distances = np.concatenate([distances, *(block[1] for block in found)])
        is_crowded |= np.concatenate([np.empty(0, bool), *(x[2] for x in found)])
    keys, distances = _keep_least(keys, distances)
    kept = _find_nearest(keys // max(1, count), distances, _PAIRS_AN_IMAGE * count)
    is_crowded[keys[~kept] // max(1, count)] = True
    return keys[kept], distances[kept], int(is_crowded.sum())


def _find_alike(
    whole: np.ndarray, other: np.ndarray, rows: int, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare some hashes of whole images with all of others.

    Returns:
        Keys and distances of pairs, and which of the images have more than `MOST`.
    """
    first = start if other is whole else 0
    few, all_others = whole[start : start + rows, None], other[None, first:]
    differing = np.bitwise_count(few ^ all_others)
    near = differing <= RADIUS
    own = np.arange(len(few))
    near[own, own + start - first] = False
    if other is whole:  # each pair once
        near[:, : len(few)] &= own[:, None] < own
    is_crowded = np.count_nonzero(near, axis=1) > MOST
    for row in np.flatnonzero(is_crowded):
        (places,) = np.nonzero(near[row])
        order = np.argsort(differing[row, places], kind="stable")
        near[row, places[order[MOST:]]] = False
    i, j = np.nonzero(near)
    distances = differing[i, j]
    i, j = i + start, j + first
    return np.minimum(i, j) * len(whole) + np.maximum(i, j), distances, is_crowded


def _find_nearest(images: np.ndarray, distances: np.ndarray, most: int) -> np.ndarray:
    """Choose, of an image that is in many pairs, only the nearest.

    Args:
        images: the first of each pair [P].
        distances: likewise.
        most: pairs to choose, unless that is less than `_LEAST_PAIRS`.

    Returns:
        Which pairs, bool [P]: of each image as many of the nearest as are not too many
        in all.
    """
    order = np.lexsort((distances, images))
    sorted_images = images[order]
    ranks = np.empty(len(images), np.int64)
    ranks[order] = np.arange(len(images)) - np.searchsorted(
        sorted_images, sorted_images
    )
    counts = np.cumsum(np.bincount(ranks, minlength=1))
    return ranks < np.searchsorted(counts, max(most, _LEAST_PAIRS), side="right")


def _keep_least(
    keys: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair once, with the least of its distances, in order."""
    order = np.lexsort((distances, keys))
    keys, distances = keys[order], distances[order]
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first], distances[first]


def _compare(one: np.ndarray, other: np.ndarray, is_aligned: np.ndarray) -> np.ndarray:
    """Compute the correlations of two lists of thumbnails, pair by pair."""
    one, other = _get_details(one), _get_details(other)
    none = np.zeros((len(one), 4), np.float32)
    found, _ = _align(one, other, none, 0)
    (asked,) = np.nonzero(is_aligned)
    if not len(asked):
        return found
    coarse = [_halve(x[asked]) for x in (one, other)]
    rough, moves = _align(*coarse, none[asked], 4)
    found[asked] = np.maximum(found[asked], rough * _PROMISING)
    good = rough > _PROMISING
    chosen = asked[good]
    better, _ = _align(one[chosen], other[chosen], moves[good], 5)
    found[chosen] = np.maximum(found[chosen], better)
    return found


def _align(
    one: np.ndarray, other: np.ndarray, moves: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move and stretch images over others, by Gauss-Newton steps.

    Args:
        one: float32 [P, S, S].
        other: likewise; these are moved.
        moves: where to begin [P, 4]: shift and stretch downwards, then to the right,
            in halves of the image.

    Returns:
        The best correlation of each pair [P], where they overlap, and its moves.
    """
    size = one.shape[1]
    places = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    middle = (abs(places) < _MIDDLE) & (abs(places[:, None]) < _MIDDLE)
    ridge = np.eye(4, dtype=np.float32) * 1e-3
    best, best_moves = np.full(len(one), -1, np.float32), moves
    for step in range(steps + 1):
        down = places * (1 + moves[:, 1:2]) + moves[:, 0:1]
        right = places * (1 + moves[:, 3:4]) + moves[:, 2:3]
        moved = _interpolate(down, size) @ other @ _interpolate(right, size).mT
        inside = (_find_inside(down) & _find_inside(right).mT & middle).astype(
            np.float32
        )
        ours, _ = _normalise(one, inside)
        theirs, length = _normalise(moved, inside)
        similarity = (ours * theirs).sum(axis=(1, 2))
        better = similarity > best
        best = np.where(better, similarity, best)
        best_moves = np.where(better[:, None], moves, best_moves)
        if step == steps:
            break
        slopes = np.gradient(moved / length, axis=(1, 2))
        columns = [slopes[0], slopes[0] * places[:, None]]
        columns += [slopes[1], slopes[1] * places]
        slopes = np.stack(columns, axis=1).reshape(len(one), 4, size**2) * (size / 2)
        slopes *= inside.reshape(len(one), 1, size**2)
        rest = (ours - theirs).reshape(len(one), size**2, 1)
        change = np.linalg.solve(slopes @ slopes.mT + ridge, slopes @ rest)[..., 0]
        moves = np.clip(moves + np.clip(change, -0.1, 0.1), -_LIMIT, _LIMIT)
    return best, best_moves


def _interpolate(places: np.ndarray, size: int) -> np.ndarray:
    """Return what picks pixels at places in -1..1 [P, S]: weights [P, S, size]."""
    pixels = (places + 1) * (size / 2) - 0.5
    return np.maximum(0, 1 - abs(pixels[..., None] - np.arange(size, dtype=np.float32)))


def _find_inside(places: np.ndarray) -> np.ndarray:
    """Return which places [P, S] are in the image but not at its edge, [P, S, 1]."""
    return (abs(places) < _MIDDLE)[..., None]


def _normalise(images: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring images [P, S, S] to mean 0 and length 1 where they are inside."""
    total = inside.sum(axis=(1, 2), keepdims=True) + 1e-6
    mean = (images * inside).sum(axis=(1, 2), keepdims=True) / total
    centred = (images - mean) * inside
    length = np.sqrt((centred * centred).sum(axis=(1, 2), keepdims=True)) + 1e-6
    return centred / length, length


def _halve(images: np.ndarray) -> np.ndarray:
    half = images.shape[1] // 2
    return images.reshape(len(images), half, 2, half, 2).mean(axis=(2, 4))


def _get_details(thumbs: np.ndarray) -> np.ndarray:
    """Return what is finer than the light and the shade of a picture, [N, S, S]."""
    fine, coarse = _make_blur(1), _make_blur(12)
    images = thumbs.astype(np.float32)
    return fine @ images @ fine.T - coarse @ images @ coarse.T


@functools.cache
def _make_blur(times: int) -> np.ndarray:
    """Return the matrix of repeated binomial blurs, under which slopes stay as is."""
    padded = np.pad(np.eye(SIDE), ((1, 1), (0, 0)), "reflect", reflect_type="odd")
    once = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.linalg.matrix_power(once, times).astype(np.float32)


@functools.cache
def _make_cosines() -> np.ndarray:
    """Return the matrix of the 8 lowest frequencies of the DCT, [8, 32]."""
    waves = np.arange(8)[:, None] * (np.arange(SIDE) + 0.5) * np.pi / SIDE
    cosines = np.cos(waves) * np.sqrt(2 / SIDE)
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)


@functools.cache
def _make_zoom(share: float) -> np.ndarray:
    """Return the matrix that stretches the middle over the whole, [32, 32]."""
    places = ((np.arange(SIDE) + 0.5) * 2 / SIDE - 1) * share
    return _interpolate(places[None].astype(np.float32), SIDE)[0]
