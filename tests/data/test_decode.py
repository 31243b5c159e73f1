import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn.data import decode

RANDOM = np.random.RandomState(0)
COLOUR = RANDOM.randint(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = RANDOM.randint(0, 256, (12, 20), dtype=np.uint8)
AS_IT_IS = decode.Layout()


def encode(image, kind="PNG", **arguments):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **arguments)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_come_back(kind):
    content = encode(COLOUR, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(decode.decode(content, AS_IT_IS), COLOUR)


def test_jpeg_is_near():
    smooth = np.broadcast_to(
        np.arange(0, 200, 10, dtype=np.uint8)[:, None], (12, 20, 3)
    )
    image = decode.decode(encode(smooth.copy(), "JPEG", quality=95), AS_IT_IS)
    assert np.abs(image.astype(int) - smooth).max() < 20


def test_channels():
    assert decode.decode(encode(GREY), AS_IT_IS).shape == (12, 20, 1)
    repeated = decode.decode(encode(GREY), decode.Layout(channels=3))
    np.testing.assert_array_equal(repeated, GREY[..., None].repeat(3, -1))
    luma = decode.decode(encode(COLOUR), decode.Layout(channels=1))[..., 0]
    expected = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_upright(orientation):
    stored = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, 1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(decode.decode(content, AS_IT_IS), COLOUR)
    image = decode.open_image(io.BytesIO(content))
    assert decode.upright_size(image) == (12, 20)


def test_palette_is_looked_up():
    image = Image.fromarray(GREY // 128).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    decoded = decode.decode(encode(image), AS_IT_IS)
    assert set(map(tuple, decoded.reshape(-1, 3))) == {(10, 20, 30), (200, 100, 50)}


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode.decode(encode(image, "JPEG", quality=100), AS_IT_IS)
    assert red.shape == (8, 8, 3)
    assert (red[..., 0] > 200).all() and (red[..., 1:] < 60).all()


def test_sixteen_bits_are_rounded():
    deep = np.arange(0, 65536, 273, dtype=np.uint16).reshape(-1, 1)
    image = decode.decode(encode(Image.fromarray(deep)), AS_IT_IS)[..., 0]
    np.testing.assert_array_equal(image, np.rint(deep / 257))


def test_one_bit():
    image = Image.fromarray(GREY).convert("1")
    decoded = decode.decode(encode(image), AS_IT_IS)
    assert decoded.shape == (12, 20, 1) and set(decoded.ravel()) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode):
    colour = (100, 50, 0) if mode == "RGBA" else (100,)
    image = Image.new(mode, (2, 1), (*colour, 0))
    image.putpixel((1, 0), (*colour, 128))
    decoded = decode.decode(encode(image), AS_IT_IS)[0].astype(int)
    assert (decoded[0] == 255).all()
    half = 255 + (np.array(colour) - 255) * 128 / 255
    assert np.abs(decoded[1] - half).max() <= 1


def test_transparent_palette_lies_on_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([9, 9, 9, 7, 7, 7])
    image.putpixel((1, 0), 1)
    decoded = decode.decode(encode(image, transparency=0), AS_IT_IS)
    assert decoded[0].tolist() == [[255] * 3, [7] * 3]


def resize(pixels, width, height):
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def test_crop_is_that_of_torchvision():
    layout = decode.Layout(size=6, resize_size=9)
    resized = resize(COLOUR, 15, 9)
    expected = resized[2:8, 4:10]
    np.testing.assert_array_equal(decode.decode(encode(COLOUR), layout), expected)
    tall = COLOUR.transpose(1, 0, 2).copy()
    expected = resize(tall, 9, 15)[4:10, 2:8]
    np.testing.assert_array_equal(decode.decode(encode(tall), layout), expected)


def test_squash_and_pad():
    content = encode(COLOUR)
    squashed = decode.decode(content, decode.Layout(10, mode="squash"))
    np.testing.assert_array_equal(squashed, resize(COLOUR, 10, 10))
    padded = decode.decode(content, decode.Layout(20, mode="pad"))
    assert padded.shape == (20, 20, 3)
    np.testing.assert_array_equal(padded[4:16], COLOUR)
    assert not padded[:4].any() and not padded[16:].any()


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 254
    small = decode.decode(encode(stripes), decode.Layout(size=8)).astype(int)
    assert np.abs(small[:, 1:-1] - 127).max() <= 8


def test_arrays_fit_as_files_do():
    layout = decode.Layout(size=8, channels=1)
    from_file = decode.decode(encode(COLOUR), layout)
    np.testing.assert_array_equal(decode.fit_arrays(COLOUR[None], layout)[0], from_file)
    whole = COLOUR[None]
    assert decode.fit_arrays(whole, AS_IT_IS) is whole


def make_huge_png():
    def chunk(kind, content):
        body = kind + content
        return (
            struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
        )

    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


BAD = {
    "empty": (b"", "empty"),
    "text": (b"<html><body>not found</body></html>", "no image but text"),
    "zip": (b"PK\x03\x04" + bytes(100), "no image"),
    "header only": (encode(COLOUR)[:20], "truncated|no image"),
    "oversized": (make_huge_png(), "oversized"),
    "long": (encode(np.zeros((1, 20000), np.uint8)), "too long"),
    "cut png": (encode(COLOUR)[:-200], "truncated or damaged"),
    "cut jpeg": (encode(COLOUR, "JPEG")[:-100], "truncated or damaged"),
    "cut bmp": (encode(COLOUR, "BMP")[:-100], "truncated or damaged"),
    "cut webp": (encode(COLOUR, "WEBP")[:-100], "truncated or damaged|no image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content(name):
    content, message = BAD[name]
    with pytest.raises(decode.BadImage, match=message):
        decode.decode(content, decode.Layout(size=224))


def test_no_flipped_bit_of_a_png_file_changes_its_pixels():
    content, refused = bytearray(encode(GREY)), 0
    for place in range(len(content)):
        content[place] ^= 1
        try:
            found = decode.decode(bytes(content), AS_IT_IS)
            np.testing.assert_array_equal(found[..., 0], GREY)
        except decode.BadImage:
            refused += 1
        content[place] ^= 1
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest"])
def test_interpolation_is_pillows(name):
    layout = decode.Layout(size=6, mode="squash", interpolation=name)
    expected = Image.fromarray(COLOUR).resize((6, 6), Image.Resampling[name.upper()])
    found = decode.decode(encode(COLOUR), layout)
    np.testing.assert_array_equal(found, np.asarray(expected))
