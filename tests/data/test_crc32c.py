import numpy as np
import pytest

from cnn.data import crc32c


def compute_bit_by_bit(text):
    register = 0xFFFFFFFF
    for byte in text:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 * (register & 1))
    return register ^ 0xFFFFFFFF


# Source: RFC 3720, appendix B.4, https://www.rfc-editor.org/rfc/rfc3720
PUBLISHED = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
    b"123456789": 0xE3069283,
    b"": 0,
}


def test_published_values():
    assert crc32c.compute(list(PUBLISHED)).tolist() == list(PUBLISHED.values())


def test_texts_of_any_lengths():
    random = np.random.RandomState(0)
    lengths = [0, 1, 255, 256, 257, 511, 512, 513, *random.randint(0, 900, 20)]
    texts = [random.bytes(length) for length in lengths]
    expected = [compute_bit_by_bit(text) for text in texts]
    assert crc32c.compute(texts).tolist() == expected
    assert [int(crc32c.compute([text])[0]) for text in texts] == expected
    assert crc32c.compute([]).tolist() == []


@pytest.mark.parametrize("place", [0, 1_500_000, 2_999_999])
def test_a_bit_of_a_long_text_counts(place):
    text = bytearray(np.random.RandomState(0).bytes(3_000_000))
    before = crc32c.compute([bytes(text), b"x"])
    text[place] ^= 16
    after = crc32c.compute([bytes(text), b"x"])
    assert before[0] != after[0] and before[1] == after[1]
