"""Files as damage makes them: `mutate` changes bytes, alike for the same seed."""

import random
import struct

_LARGE = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**12, 2**63 - 1, 2**64 - 1)


def mutate(content: bytes, seed: int) -> bytes:
    """Return bytes that are not those given: flipped, cut, moved, forged or zeroed.

    Args:
        content: of a file.
        seed: chooses how, and where; one seed always does the same.
    """
    draw = random.Random(seed)
    while True:
        changed = draw.choice(_WAYS)(bytearray(content), draw)
        if changed != content:
            return bytes(changed)


def _flip_bits(content: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 1, 2, 8, 64))):
        if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


def _overwrite(content: bytearray, draw: random.Random) -> bytearray:
    first, last = _draw_span(content, draw)
    content[first:last] = draw.randbytes(last - first)
    return content


def _zero(content: bytearray, draw: random.Random) -> bytearray:
    first, last = _draw_span(content, draw)
    content[first:last] = bytes(last - first)
    return content


def _cut_off(content: bytearray, draw: random.Random) -> bytearray:
    return content[: draw.randrange(len(content) + 1)]


def _remove(content: bytearray, draw: random.Random) -> bytearray:
    first, last = _draw_span(content, draw)
    return content[:first] + content[last:]


def _insert(content: bytearray, draw: random.Random) -> bytearray:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.randint(1, 40)) + content[place:]


def _repeat(content: bytearray, draw: random.Random) -> bytearray:
    first, last = _draw_span(content, draw)
    return content[:last] + content[first:last] + content[last:]


def _swap(content: bytearray, draw: random.Random) -> bytearray:
    (a, b), (c, d) = sorted(_draw_span(content, draw) for _ in range(2))
    if c < b:
        return content[::-1]
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _forge_number(content: bytearray, draw: random.Random) -> bytearray:
    form = draw.choice("<B <H <I <Q >H >I >Q <i <q".split())
    size = struct.calcsize(form)
    if len(content) < size:
        return content[::-1]
    number = draw.choice(_LARGE) & (2 ** (8 * size - form[1].islower()) - 1)
    place = draw.randrange(len(content) - size + 1)
    content[place : place + size] = struct.pack(form, number)
    return content


def _forge_digits(content: bytearray, draw: random.Random) -> bytearray:
    places = [i for i, byte in enumerate(content) if chr(byte).isdecimal()]
    if not places:
        return content[::-1]
    place, text = draw.choice(places), draw.choice((b"-1", b"1e400", b"1" + b"0" * 12))
    return content[:place] + text + content[place + 1 :]


def _append(content: bytearray, draw: random.Random) -> bytearray:
    return content + draw.randbytes(draw.choice((1, 7, 512)))


def _draw_span(content: bytearray, draw: random.Random) -> tuple[int, int]:
    first = draw.randrange(len(content) + 1)
    return first, min(len(content), first + draw.choice((1, 2, 8, 64, 4096)))


_WAYS = (
    _flip_bits,
    _flip_bits,
    _overwrite,
    _zero,
    _cut_off,
    _remove,
    _insert,
    _repeat,
    _swap,
    _forge_number,
    _forge_digits,
    _append,
)
