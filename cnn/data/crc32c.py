"""CRC-32C (Castagnoli) of many texts of bytes at once.

Blocks of equal length are computed side by side, whatever text they belong to, and
their results joined: the sum is linear, so that bytes which follow a block only
multiply its register by a power of x.
Source: RFC 3720, appendix B.4, https://www.rfc-editor.org/rfc/rfc3720
"""

import functools
from collections.abc import Sequence

import numpy as np

_POLYNOMIAL = 0x82F63B78
_ONES = np.uint32(0xFFFFFFFF)
_BLOCK = 256  # bytes
# Blocks computed at a time: 1 MiB, which stays in a core's cache.
_BLOCKS = 4096


def compute(texts: Sequence[bytes]) -> np.ndarray:
    """Compute the CRC-32C of each text, uint32 [N]."""
    lengths = np.array([len(text) for text in texts], np.int64)
    # A text of no bytes has a block as well, so that each has its register.
    blocks = np.maximum(1, -(-lengths // _BLOCK))
    ends = np.cumsum(blocks)
    registers = np.empty(ends[-1] if len(ends) else 0, np.uint32)
    first = 0
    while first < len(texts):
        start = ends[first] - blocks[first]
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCKS, "right")))
        registers[start : ends[last - 1]] = _compute_blocks(
            texts[first:last], blocks[first:last]
        )
        first = last
    if not len(texts):
        return registers
    behind = np.repeat(ends, blocks) - np.arange(1, len(registers) + 1)
    registers = _append_zeros(registers, behind * _BLOCK)
    found = np.bitwise_xor.reduceat(registers, ends - blocks)
    return found ^ _append_zeros(np.full(len(texts), _ONES), lengths) ^ _ONES


def _compute_blocks(texts: Sequence[bytes], blocks: np.ndarray) -> np.ndarray:
    """Compute the register of each block, from 0 on."""
    # Zeros before a text leave a register of 0 as it is.
    padded = b"".join(
        part
        for text, count in zip(texts, blocks.tolist(), strict=True)
        for part in (bytes(count * _BLOCK - len(text)), text)
    )
    words = np.frombuffer(padded, "<u2").reshape(-1, _BLOCK // 2)
    registers = np.zeros(len(words), np.uint32)
    table = _make_table()
    for start in range(0, len(words), _BLOCKS):
        part = registers[start : start + _BLOCKS]
        for word in words[start : start + _BLOCKS].T.copy():
            # In place: the low half looks up what the high half is changed by.
            low = part.astype(np.uint16)
            low ^= word
            part >>= 16
            part ^= table[low]
    return registers


@functools.cache
def _make_table() -> np.ndarray:
    """Return the register that 16 bits leave behind, uint32 [65536]."""
    table = np.arange(2**16, dtype=np.uint32)
    for _ in range(16):
        table = (table >> 1) ^ (table & 1) * np.uint32(_POLYNOMIAL)
    return table


def _append_zeros(registers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return registers [N] as they are after as many bytes of zeros each, [N]."""
    registers = registers.copy()
    for power in range(int(counts.max()).bit_length()):
        (chosen,) = np.nonzero(counts >> power & 1)
        if len(chosen):
            registers[chosen] = _apply(power, registers[chosen])
    return registers


def _apply(power: int, registers: np.ndarray) -> np.ndarray:
    """Return registers [N] as they are after 2^power bytes of zeros, [N]."""
    low, high = _make_power(power)
    return low[registers & 0xFFFF] ^ high[registers >> 16]


@functools.cache
def _make_power(power: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what 2^power zeros make of each low and each high half of a register."""
    low = np.arange(2**16, dtype=np.uint32)
    halves = [low, low << 16]
    if power:
        return tuple(_apply(power - 1, _apply(power - 1, x)) for x in halves)
    for _ in range(8):
        halves = [(x >> 1) ^ (x & 1) * np.uint32(_POLYNOMIAL) for x in halves]
    return tuple(halves)
