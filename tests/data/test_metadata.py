"""EXIF turns an image; where it is damaged the image is read without, which is said."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from cnn import data
from cnn.data import decode, metadata

PIXELS = np.indices((12, 20)).sum(0).astype(np.uint8)[..., None] * np.uint8([3, 5, 7])
AS_IT_IS = decode.Layout()
ORIENTATION, MAKER, EXIF_DIRECTORY = 0x0112, 0x010F, 0x8769
BYTE, TEXT, SHORT, LONG = 1, 2, 3, 4
SAVED = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}}
SAVED |= {"WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {"quality": 100}}
if not features.check("avif"):
    del SAVED["AVIF"]


def make_block(*entries, order="<", start=8, count=None, behind=0):
    """Make an EXIF block of one directory; an entry is tag, type, length, value."""
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    block += struct.pack(order + "H", len(entries) if count is None else count)
    for tag, kind, length, value in entries:
        form = {BYTE: "B3x", SHORT: "H2x"}.get(kind, "I")
        block += struct.pack(order + "HHI" + form, tag, kind, length, value)
    return block + struct.pack(order + "I", behind)


def encode(kind="PNG", pixels=PIXELS, **arguments):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        file, kind, **SAVED[kind], **arguments
    )
    return file.getvalue()


def add_segment(content, body, marker=0xE1):
    """Put a segment behind the start of a JPEG file."""
    head = struct.pack(">BBH", 0xFF, marker, len(body) + 2)
    return content[:2] + head + body + content[2:]


def insert(kind, block):
    """Return an image file with an EXIF block, whatever is in it."""
    if kind == "JPEG":
        return add_segment(encode(kind), b"Exif\0\0" + block)
    return encode(kind, exif=b"Exif\0\0" + block)


def open_file(content):
    return decode.open_image(io.BytesIO(content))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", SAVED)
def test_each_orientation_is_applied(kind, order):
    # How a viewer turns it: by Pillow's own function.
    from PIL import ImageOps

    for orientation in range(1, 9):
        if kind == "TIFF":
            content = encode(kind, tiffinfo={ORIENTATION: orientation})
        else:
            entry = (ORIENTATION, SHORT, 1, orientation)
            content = insert(kind, make_block(entry, order=order))
        expected = np.asarray(
            ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        )
        found = decode.decode(content, AS_IT_IS)
        np.testing.assert_array_equal(found, expected)
        assert found.shape[:2] == ((12, 20) if orientation < 5 else (20, 12))
        assert decode.upright_size(open_file(content)) == found.shape[:2]
        assert not metadata.has_damaged_exif(open_file(content))


SIX = (ORIENTATION, SHORT, 1, 6)
WHOLE = make_block(SIX)
STRAIGHT = {
    "nothing": b"",
    "no orientation": make_block((MAKER, TEXT, 4, 0x00414141)),
    "zero": make_block((ORIENTATION, SHORT, 1, 0)),
}
TURNED = {
    "long": make_block((ORIENTATION, LONG, 1, 6)),
    "no next directory": WHOLE[:-4],
    "the next directory is this one": make_block(SIX, behind=8),
    "the next directory is beyond": make_block(SIX, behind=10**9),
    "a directory in it is this one": make_block(SIX, (EXIF_DIRECTORY, LONG, 1, 8)),
    "a directory in it is beyond": make_block(SIX, (EXIF_DIRECTORY, LONG, 1, 10**9)),
    "a type that nobody knows": make_block((MAKER, 99, 2**31, 2**31), SIX),
}
DAMAGED = {
    "zeros": bytes(60),
    "noise": bytes(range(1, 200)),
    "cut in the header": WHOLE[:6],
    "cut in the count": WHOLE[:9],
    "cut in an entry": WHOLE[:14],
    "cut in the value": WHOLE[:19],
    "starts beyond": WHOLE[:4] + struct.pack("<I", 10**9) + WHOLE[8:],
    "starts in the header": WHOLE[:4] + struct.pack("<I", 0) + WHOLE[8:],
    "the other order of bytes": b"MM\0*" + WHOLE[4:],
    "more entries than there are": make_block(SIX, count=65535),
    "a value before it is beyond": make_block((MAKER, TEXT, 20, 3000), SIX),
    "a value behind it is beyond": make_block(SIX, (0x0131, TEXT, 20, 3000)),
    "a value of 2 GB": make_block((MAKER, TEXT, 2**31, 30), SIX),
    "many orientations": make_block((ORIENTATION, SHORT, 2**31, 6)),
    "no orientations": make_block((ORIENTATION, SHORT, 0, 6)),
    "an orientation of text": make_block((ORIENTATION, TEXT, 1, 54)),
    "an orientation of bytes": make_block((ORIENTATION, BYTE, 1, 6)),
    "an orientation of 9": make_block((ORIENTATION, SHORT, 1, 9)),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", [*STRAIGHT, *TURNED, *DAMAGED])
def test_damage_is_found_and_the_image_is_read(kind, name):
    content = insert(kind, (STRAIGHT | TURNED | DAMAGED)[name])
    found = decode.decode(content, AS_IT_IS)
    expected = np.rot90(PIXELS, -1) if name in TURNED else PIXELS
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 8
    assert decode.upright_size(open_file(content)) == found.shape[:2]
    assert metadata.has_damaged_exif(open_file(content)) == (name in DAMAGED)


@pytest.mark.parametrize(
    "marker, body",
    [
        (0xE0, b"JFIF"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xEE, b"Adobe"),
        (0xE1, b"Exif\0\0II"),
    ],
)
def test_damaged_segments_of_a_jpeg_file_are_left_out(marker, body):
    damaged = add_segment(encode("JPEG"), body, marker)
    expected = decode.decode(encode("JPEG"), AS_IT_IS)
    np.testing.assert_array_equal(decode.decode(damaged, AS_IT_IS), expected)


def test_damaged_chunks_of_a_png_are_left_out():
    png, kind = encode("PNG"), b"zTXt"
    text = b"Raw profile type exif\0\0no zlib"
    chunk = struct.pack(">I", len(text)) + kind + text + bytes(4)  # and a wrong sum
    damaged = png[:33] + chunk + png[33:]
    np.testing.assert_array_equal(decode.decode(damaged, AS_IT_IS), PIXELS)


@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize("image_size", [0, 12])
def test_damaged_metadata_are_said(tmp_path, resident, image_size):
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "0.png").write_bytes(encode())
    for i, name in enumerate(("cut in an entry", "zeros")):
        content = insert("JPEG", DAMAGED[name])
        (tmp_path / f"train/ant/odd{i}.jpg").write_bytes(content)
    options = {"resident": resident, "image_size": image_size}
    options |= {"dataset": f"folder:{tmp_path}"}
    dataset = data.load_dataset(data.DataOptions(**options))
    assert len(dataset.train) == 4 and not dataset.excluded
    (note,) = (note for note in dataset.notes if "metadata" in note)
    assert note.startswith("2 images with damaged metadata, read without them")
    assert "odd0.jpg" in note and "odd1.jpg" in note
