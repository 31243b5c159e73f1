"""Mutations of files: what disks, copies and attackers do to them, by a seed.

`mutate` is pure: the same content and seed give the same bytes everywhere.
"""

import random
import re
from collections.abc import Callable

# What a field that holds a length, a count or a place is overwritten with.
_NUMBERS = (
    0,
    1,
    255,
    2**15,
    2**31 - 1,
    2**32 - 1,
    10**12,
    10**18,
    2**63 - 1,
    2**64 - 1,
)
# What stands in place of a number or a word that is written out.
_WORDS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"1000000000000", b"9" * 5000, b"")
_WORDS += (b"[" * 2000, b'"', b"\0", b"\xff\xfe", b"{}", b"..", b"true", b"\n")


def mutate(content: bytes, seed: int) -> bytes:
    """Return the content of a file after one to three mutations, changed."""
    draws = random.Random(seed)
    data = bytearray(content)
    while data == content:
        for _ in range(draws.choice((1, 1, 1, 2, 3))):
            draws.choice(_MUTATIONS)(data, draws)
    return bytes(data)


def _choose_piece(data: bytearray, draws: random.Random) -> slice:
    """Draw a piece of up to 512 bytes; often it is at the start or at the end."""
    length = min(len(data), draws.choice((1, 4, 16, 64, 512)))
    last = len(data) - length
    start = draws.choice((0, last, *(draws.randint(0, last) for _ in range(3))))
    return slice(start, start + length)


def _flip_bits(data: bytearray, draws: random.Random) -> None:
    piece = _choose_piece(data, draws)
    for _ in range(draws.choice((1, 1, 8)) if piece.stop > piece.start else 0):
        data[draws.randrange(piece.start, piece.stop)] ^= 1 << draws.randrange(8)


def _cut(data: bytearray, draws: random.Random) -> None:
    del data[draws.choice((0, 1, len(data) - 1, draws.randint(0, len(data)))) :]


def _cut_out(data: bytearray, draws: random.Random) -> None:
    del data[_choose_piece(data, draws)]


def _insert(data: bytearray, draws: random.Random) -> None:
    start = _choose_piece(data, draws).start
    data[start:start] = draws.randbytes(draws.choice((1, 2, 4, 100)))


def _repeat(data: bytearray, draws: random.Random) -> None:
    piece = _choose_piece(data, draws)
    data[piece.start : piece.start] = data[piece] * draws.choice((1, 1, 50))


def _swap(data: bytearray, draws: random.Random) -> None:
    one, other = sorted(
        (_choose_piece(data, draws) for _ in range(2)), key=lambda x: x.start
    )
    length = min(other.start - one.start, len(data) - other.start, 64)
    one = slice(one.start, one.start + length)
    other = slice(other.start, other.start + length)
    data[one], data[other] = data[other], data[one]


def _overwrite(data: bytearray, draws: random.Random) -> None:
    piece = _choose_piece(data, draws)
    length = piece.stop - piece.start
    data[piece] = draws.choice(
        (bytes(length), b"\xff" * length, draws.randbytes(length))
    )


def _forge_number(data: bytearray, draws: random.Random) -> None:
    width, order = draws.choice((2, 4, 8)), draws.choice(("little", "big"))
    number = draws.choice(_NUMBERS) % 2 ** (8 * width)
    start = _choose_piece(data, draws).start
    data[start : start + width] = number.to_bytes(width, order)


def _forge_word(data: bytearray, draws: random.Random) -> None:
    """Replace what reads as a number or a name."""
    found = list(re.finditer(rb"-?[0-9.]+|[A-Za-z_]+", data))
    if found:
        place = draws.choice(found)
        data[place.start() : place.end()] = draws.choice(_WORDS)


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits,
    _cut,
    _cut_out,
    _insert,
    _repeat,
    _swap,
    _overwrite,
    _forge_number,
    _forge_word,
)
