"""Files are what their content says, and what is no image is said and left out."""

import io
import os
import socket

import numpy as np
import pytest
from PIL import Image, features

from cnn import data
from cnn.data import decode, formats
from cnn.errors import UserError

RANDOM = np.random.RandomState(0)
COLOUR = RANDOM.randint(0, 256, (12, 20, 3), dtype=np.uint8)
AS_IT_IS = decode.Layout()
# Each format that is written, and how far from the pixels it may come back.
SAVED = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "BMP": {},
    "DIB": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "PPM": {},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}
LOSSY = {"JPEG": 8, "GIF": 40, "AVIF": 8}
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF")
EACH = [pytest.param(kind, marks=[needs_avif] * (kind == "AVIF")) for kind in SAVED]


def encode(image, kind, **arguments):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, kind, **arguments)
    return file.getvalue()


def read(image, kind="TIFF", **arguments):
    return decode.decode(encode(image, kind, **arguments), AS_IT_IS)


def load(root, **options):
    return data.load_dataset(data.DataOptions(dataset=f"folder:{root}", **options))


def write(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path):
    """Return class folders of two images each to train on and to test on."""
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            for i in range(2):
                write(tmp_path, f"{part}/{name}/{i}.png", encode(COLOUR, "PNG"))
    return tmp_path


@pytest.mark.parametrize("kind", EACH)
def test_each_format_is_read_whatever_its_name(folder, kind):
    smooth = np.indices((12, 20)).sum(0).astype(np.uint8)[..., None] * [3, 5, 7]
    content = encode(smooth.astype(np.uint8), kind, **SAVED[kind])
    for ending in ("jpg", "PNG", "gif"):
        write(folder, f"train/ant/{kind}.{ending}", content)
    for resident in ("always", "never"):
        train = load(folder, resident=resident).train
        found = train.read(np.arange(len(train)))[2:5].astype(int)
        assert np.abs(found - smooth).max() <= LOSSY.get(kind, 0)


def test_each_ending_is_read_in_any_case(folder):
    for ending in formats.ENDINGS:
        write(folder, f"train/ant/a{ending.upper()}", encode(COLOUR, "PNG"))
        write(folder, f"train/bee/a{ending}", encode(COLOUR, "PNG"))
    for wanted in ("jpe jfif tif tiff gif ppm pgm pbm dib apng avif").split():
        assert f".{wanted}" in formats.ENDINGS
    counts = np.bincount(load(folder).train.labels).tolist()
    assert counts == [2 + len(formats.ENDINGS)] * 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read(kind):
    frames = [Image.new("RGB", (6, 4), (200 - 60 * i, 0, 0)) for i in range(3)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **lossless
    )
    assert Image.open(io.BytesIO(content)).n_frames == 3
    found = decode.decode(content, AS_IT_IS)
    assert found.shape == (4, 6, 3) and (found == [200, 0, 0]).all()


def test_a_frame_of_a_part_of_a_gif_lies_on_white():
    content = bytearray(encode(Image.new("P", (4, 4), 0), "GIF"))
    place = content.index(b"\x2c", 13)  # the frame's corner and size follow
    inner = encode(Image.new("P", (2, 2), 0), "GIF")
    inside = inner[inner.index(b"\x2c", 13) :]
    corner = b"\x2c\x01\x00\x01\x00" + inside[5:]
    found = decode.decode(bytes(content[:place]) + corner, AS_IT_IS)
    assert (found[1:3, 1:3] == 0).all() and found.sum() == 12 * found.shape[2] * 255


def make_palette():
    image = Image.fromarray((COLOUR[..., 0] > 99).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    return image


TIFFS = {
    "16 bits": (
        Image.fromarray(np.array([[0, 257, 65535, 300]], np.uint16)),
        [[[0], [1], [255], [1]]],
    ),
    "CMYK": (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [[[255, 0, 0]] * 2]),
    "palette": (
        make_palette(),
        np.where(COLOUR[..., :1] > 99, [200, 100, 50], [10, 20, 30]),
    ),
    "alpha": (Image.new("RGBA", (1, 1), (0, 0, 0, 0)), [[[255, 255, 255]]]),
    "grey and alpha": (Image.new("LA", (1, 1), (9, 255)), [[[9]]]),
    "1 bit": (Image.new("1", (2, 1), 1), [[[255], [255]]]),
    "colour": (Image.fromarray(COLOUR), COLOUR),
}


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("name", TIFFS)
def test_tiff_of_each_mode(name, compression):
    image, expected = TIFFS[name]
    np.testing.assert_array_equal(read(image, compression=compression), expected)


def test_numbers_without_a_range_are_refused():
    for image in (Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 7)):
        with pytest.raises(decode.BadImage, match="no fixed range; save 8 or 16 bits"):
            read(image)


def test_portable_maps():
    cases = {
        b"P1\n2 1\n0 1\n": [255, 0],
        b"P4\n2 1\n\x40": [255, 0],
        b"P2\n# odd\n2 1\n100\n0 100\n": [0, 255],
        b"P5\n2 1\n65535\n\x00\x00\xff\xff": [0, 255],
    }
    for content, expected in cases.items():
        found = decode.decode(content, AS_IT_IS)
        assert found.shape == (1, 2, 1) and found.ravel().tolist() == expected


OTHERS = {
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC/HEIF photo; convert"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", r"a video \(MP4"),
    "mkv": (b"\x1a\x45\xdf\xa3" + bytes(20), r"a video \(Matroska"),
    "avi": (b"RIFF\x10\0\0\0AVI LIST", r"a video \(AVI"),
    "svg": (b'<?xml version="1.0"?>\n<svg width="1"/>', "an SVG drawing; convert"),
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE HTML><p>404", "an HTML page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
    "pdf": (b"%PDF-1.7\n", "a PDF document; convert"),
    "psd": (b"8BPS\0\1", "a Photoshop document; convert"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image; convert"),
    "jxl": (b"\xff\x0a\xfa\x7f", "a JPEG XL image; convert"),
    "npy": (b"\x93NUMPY\1\0", "a NumPy array"),
    "zip": (b"PK\x03\x04", "a zip archive; unpack it"),
    "dicom": (bytes(128) + b"DICM\2\0", "a DICOM image; convert"),
    "zeros": (bytes(5000), "zeros"),
    "text": (b"not found\n", "but text"),
    "the start of a JPEG": (b"\xff\xd8", "but damaged"),
    "noise": (bytes(range(256)), "damaged or of another kind"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_image_is_named(name):
    content, message = OTHERS[name]
    with pytest.raises(decode.BadImage, match=message):
        decode.decode(content, AS_IT_IS)


def test_avif_without_the_library_is_said(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setattr(formats, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(decode.BadImage, match="Pillow was built without AVIF; convert"):
        decode.decode(OTHERS["avif"][0], AS_IT_IS)


@pytest.mark.parametrize("kind", EACH)
def test_a_cut_file_is_found_when_it_is_listed(folder, kind):
    content = encode(RANDOM.randint(0, 256, (12, 20, 3), np.uint8), kind)
    for length in (0.3, 0.7, 0.95):
        write(folder, f"train/ant/{length}.jpg", content[: int(len(content) * length)])
    dataset = load(folder, resident="never", bad_images="skip")
    assert len(dataset.train) == 4 and len(dataset.excluded) == 3


def test_what_is_no_file_is_never_waited_for(folder, monkeypatch):
    os.mkfifo(folder / "train/ant/pipe.jpg")
    os.symlink("/dev/zero", folder / "train/ant/endless.jpg")
    os.symlink(folder / "nowhere", folder / "train/ant/broken.jpg")
    os.symlink("itself.jpg", folder / "train/ant/itself.jpg")
    (folder / "train/ant/folder.jpg").mkdir()
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("train/ant/socket.jpg")
    with pytest.raises(UserError, match="broken.jpg: No such file"):
        load(folder)
    for resident in ("always", "never"):
        excluded = load(folder, resident=resident, bad_images="skip").excluded
        reasons = {bad.name: bad.reason for bad in excluded}
        assert reasons == {
            "train/ant/broken.jpg": "No such file or directory",
            "train/ant/itself.jpg": "Too many levels of symbolic links",
            "train/ant/endless.jpg": "it is no file but a device, a pipe or a socket",
            "train/ant/pipe.jpg": "it is no file but a device, a pipe or a socket",
            "train/ant/socket.jpg": "it is no file but a device, a pipe or a socket",
        }
