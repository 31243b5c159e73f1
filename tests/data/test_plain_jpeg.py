"""Plain JPEG files decoded by simplejpeg: the pixels and errors of Pillow alone."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from cnn.data import decode, plain_jpeg
from cnn.data.decode import BadImage, Layout

if plain_jpeg.simplejpeg is None:
    pytest.skip("needs simplejpeg", allow_module_level=True)

WHOLE = Layout()
LAYOUTS = (WHOLE, Layout(size=24, channels=3), Layout(size=16, channels=1, mode="pad"))
THUMBNAIL = b"\xff\xd8\xff\xdb" + 40 * b"\xff\xd9"


def make_pixels(width, height, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 3), np.cos(y / 2), np.sin((x + y) / 4)], -1)
    noise = random.normal(0, 20, (height, width, 3))
    return np.uint8(np.clip(128 + 90 * waves + noise, 0, 255))


def make_file(width=33, height=21, mode="RGB", **options):
    file = io.BytesIO()
    image = Image.fromarray(make_pixels(width, height)).convert(mode)
    image.save(file, "JPEG", **options)
    return file.getvalue()


def insert(content, marker, body):
    """Put a segment behind the first one of a file."""
    end = 4 + int.from_bytes(content[4:6])
    length = (len(body) + 2).to_bytes(2)
    return content[:end] + b"\xff" + bytes([marker]) + length + body + content[end:]


def read(content, layout):
    """Return pixels, or the error."""
    try:
        return decode.decode(content, layout)
    except BadImage as error:
        return str(error)


def read_both(content, layout, monkeypatch):
    """Return what is read with simplejpeg, and what by Pillow alone."""
    ours = read(content, layout)
    with monkeypatch.context() as context:
        context.setattr(plain_jpeg, "simplejpeg", None)
        return ours, read(content, layout)


def check_equal(content, monkeypatch, layouts=LAYOUTS):
    for layout in layouts:
        ours, expected = read_both(content, layout, monkeypatch)
        assert type(ours) is type(expected), (ours, expected)
        np.testing.assert_array_equal(ours, expected)


PLAIN = {
    "".join(f" {key}={value}" for key, value in options.items()): options
    for options in (
        *({"quality": quality} for quality in (1, 10, 50, 75, 95, 100)),
        *(
            {"subsampling": kind, "progressive": way}
            for kind, way in itertools.product(
                ("4:4:4", "4:2:2", "4:2:0"), (False, True)
            )
        ),
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1},
        {"comment": "of a camera"},
        {"icc_profile": b"profile" * 20_000},
        {"mode": "L"},
        {"mode": "L", "progressive": True},
    )
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_have_the_pixels_of_pillow(name, monkeypatch):
    content = make_file(**PLAIN[name])
    assert plain_jpeg.decode(content, plain_jpeg.read_size(content)[2]) is not None
    check_equal(content, monkeypatch)


def test_every_small_size(monkeypatch):
    for width, height in itertools.product(range(1, 18), repeat=2):
        content = make_file(width, height)
        assert plain_jpeg.read_size(content) == (height, width, 3)
        check_equal(content, monkeypatch, [WHOLE])


def make_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


OTHERS = {
    "CMYK": {"mode": "CMYK"},
    "RGB": {"keep_rgb": True},
    **{f"orientation {n}": {"exif": make_exif(n)} for n in range(1, 9)},
    "Adobe": (0xEE, b"Adobe\0d\0\0\0\0\0"),
    "thumbnail": (0xE0, b"JFXX\0\x10" + THUMBNAIL),
    "several pictures": (0xE2, b"MPF\0MM\0*\0\0\0\x08"),
    "Photoshop": (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0"),
    "tables of 16 bits": (0xDB, b"\x10" + 64 * b"\0\x05"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_too(name, monkeypatch):
    options = OTHERS[name]
    is_segment = isinstance(options, tuple)
    content = insert(make_file(), *options) if is_segment else make_file(**options)
    check_equal(content, monkeypatch)


@pytest.mark.parametrize("progressive", [False, True])
def test_damaged_files_are_judged_by_pillow(progressive, monkeypatch):
    whole = make_file(progressive=progressive)
    files = [whole[: len(whole) * part // 20] for part in range(20)]
    files += [whole[:-1], whole[:-2], whole[:-2] + b"\xff\xd9", whole + b"garbage"]
    files += [whole + whole, whole[:-2] + 50 * b"\0" + whole[-2:]]
    random = np.random.default_rng(1)
    for place in random.integers(0, len(whole), 200):
        broken = bytearray(whole)
        broken[place] = random.integers(256)
        files.append(bytes(broken))
    for content in files:
        check_equal(content, monkeypatch, [WHOLE])


def test_other_pixels_leave_all_to_pillow(monkeypatch):
    class Other:
        @staticmethod
        def decode_jpeg(content, colours):
            return np.zeros((45, 45, 1 if colours == "GRAY" else 3), np.uint8)

    content = make_file()
    expected = decode.decode(content, WHOLE)
    monkeypatch.setattr(plain_jpeg, "simplejpeg", Other)
    plain_jpeg.is_trusted.cache_clear()
    try:
        assert plain_jpeg.read_size(content) is None
        np.testing.assert_array_equal(decode.decode(content, WHOLE), expected)
    finally:
        plain_jpeg.is_trusted.cache_clear()


def test_what_can_be_smaller_is_decoded_smaller(monkeypatch):
    check_equal(make_file(128, 64), monkeypatch, [Layout(size=16, channels=3)])
