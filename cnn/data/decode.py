"""From the bytes of an image file, or an array, to uint8 [H, W, C] of one size.

Images are decoded as a viewer shows them: turned upright by their EXIF tag, palettes
looked up, CMYK converted, 16 bits a channel rounded to 8 (of grey images; of colour
images Pillow keeps the upper 8), transparent parts laid on white, the first frame of
an animation. ICC profiles are not applied. Grey becomes colour by repetition, colour
becomes grey by ITU-R 601-2 luma. Resizing is bilinear with antialiasing, as in
torchvision's `Resize` and `CenterCrop` of PIL images.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cnn.data.options import DataOptions, find_centre

if TYPE_CHECKING:
    from PIL import Image

# Threads decode large images faster, as decoding releases Python's lock, and small ones
# slower, as most of their time is Python's. JPEG files of 32×32 pixels (1 kB): 8,800
# images/s in one thread, 6,400 in two; 64×64 (1.9 kB): 8,000 and 6,800; 96×96 (3.3 kB):
# 5,400 and 6,900; 224×224 (13 kB): 2,500 and 3,200.
THREADS_PAY_BYTES = 2_500
_SHARE = 8
_CALLS = 64

MAX_PIXELS = 2**26
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_ORIENTATION = 0x0112
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class BadImage(Exception):
    """What is wrong with one image; messages put its name and a colon before it."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The size and channels that images are brought to.

    Attributes:
        size: height and width in pixels; 0 leaves both as they are.
        channels: 1 or 3; 0 leaves them as they are (grey 1, any other 3).
        mode: `crop`, `squash` or `pad`.
        resize_size: in mode crop, the shorter side in pixels before the centre
            crop; 0 means `size`.
    """

    size: int = 0
    channels: int = 0
    mode: str = "crop"
    resize_size: int = 0


def make_layout(options: DataOptions) -> Layout:
    """Make the layout that images are brought to when they are loaded."""
    return Layout(
        options.stored_size, options.channels, options.resize_mode, options.resize_size
    )


def decode(content: bytes, layout: Layout) -> np.ndarray:
    """Decode the bytes of an image file to uint8 [H, W, C].

    Raises:
        BadImage: the bytes are empty, no image, truncated or larger than `MAX_PIXELS`.
    """
    image = open_image(io.BytesIO(content))
    try:
        image = _flatten(_upright(image), layout.channels)
    except BadImage:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise BadImage(f"the image is truncated or damaged ({error})") from error
    return _to_array(_fit(image, layout))


def open_image(file: BinaryIO) -> "Image.Image":
    """Read the header of an image file; the pixels are decoded later.

    Raises:
        BadImage: the file is empty, no image or larger than `MAX_PIXELS`.
    """
    from PIL import Image

    if not file.read(1):
        raise BadImage("the file is empty")
    file.seek(0)
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"the image is oversized ({error})") from error
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        is_text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in file.read(512))
        kind = "text" if is_text else "damaged or of another kind"
        raise BadImage(f"the content is no image but {kind}") from error
    except Exception as error:
        raise BadImage(f"the image is truncated or damaged ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"the image is oversized: {image.width}×{image.height} pixels, "
            f"at most {MAX_PIXELS:,} are read"
        )
    return image


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """Return (height, width) in pixels after EXIF's rotation.

    Raises:
        BadImage: the file is damaged.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # many kinds, as in decode
        raise BadImage(f"the image is truncated or damaged ({error})") from error
    if orientation in (5, 6, 7, 8):
        return image.width, image.height
    return image.height, image.width


def is_grey(image: "Image.Image") -> bool:
    """Whether the image has one channel, transparency aside."""
    return image.mode in ("1", "L", "LA", "La", "F", *_SIXTEEN_BITS)


def fit_arrays(images: np.ndarray, layout: Layout) -> np.ndarray:
    """Bring decoded images to a layout.

    Args:
        images: uint8 [N, H, W, C] of 1 or 3 channels; returned itself when it
            already is in the layout.

    Returns:
        uint8 [N, size, size, channels].
    """
    n, height, width, channels = images.shape
    size, wanted = layout.size, layout.channels or channels
    enlarged = layout.mode == "crop" and layout.resize_size not in (0, size)
    same_size = size == 0 or (height == width == size and not enlarged)
    if same_size and wanted == channels:
        return images
    from PIL import Image

    result = np.empty((n, size or height, size or width, wanted), dtype=np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        result[i] = _to_array(_fit(_flatten(image, wanted), layout))
    return result


def _upright(image: "Image.Image") -> "Image.Image":
    from PIL import ImageOps

    image.load()
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _flatten(image: "Image.Image", channels: int) -> "Image.Image":
    """Bring an image of any mode to L or RGB."""
    from PIL import Image

    mode = {0: "L" if is_grey(image) else "RGB", 1: "L", 3: "RGB"}[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BITS:
        image = _sixteen_to_eight(image)
    if image.mode == "F":
        raise BadImage("floating-point pixels have no fixed range; save 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


def _sixteen_to_eight(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise BadImage("32-bit pixels have no fixed range; save 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _fit(image: "Image.Image", layout: Layout) -> "Image.Image":
    """Resize an L or RGB image to the layout's square."""
    from PIL import Image, ImageOps

    size = layout.size
    if size == 0:
        return image
    if layout.mode == "squash":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    if layout.mode == "pad":
        return ImageOps.pad(image, (size, size), Image.Resampling.BILINEAR)
    shorter = layout.resize_size or size
    width, height = image.size
    if min(width, height) != shorter:
        if width <= height:
            width, height = shorter, int(shorter * height / width)
        else:
            width, height = int(shorter * width / height), shorter
        if width * height > MAX_PIXELS:
            raise BadImage(f"the image is too long: {image.width}×{image.height}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (find_centre(side, size) for side in (width, height))
    if (left, top, width, height) == (0, 0, size, size):
        return image
    return image.crop((left, top, left + size, top + size))


def _to_array(image: "Image.Image") -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def stack(
    make: Callable[[int], np.ndarray],
    count: int,
    shape: tuple[int, ...],
    threads: bool,
) -> np.ndarray:
    """Stack `make(0)` to `make(count - 1)`, each of `shape`, in threads if wanted.

    Returns:
        uint8 [count, *shape].

    Raises:
        Exception: the first that `make` raised, by position.
    """
    result = np.empty((count, *shape), dtype=np.uint8)

    def fill(i: int) -> None:
        result[i] = make(i)

    if threads and count > _SHARE:
        call_all(fill, range(count), _SHARE)
    else:
        for i in range(count):
            fill(i)
    return result


def call_all(
    function: Callable[[Any], Any], items: Sequence[Any], share: int = _CALLS
) -> list[Any]:
    """Return `function` of each item, in order, `share` items at a time in a thread.

    Raises:
        Exception: the first that `function` raised, by position.
    """
    starts = range(0, len(items), share)

    def call(start: int) -> list[Any]:
        return [function(item) for item in items[start : start + share]]

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return [result for results in executor.map(call, starts) for result in results]
