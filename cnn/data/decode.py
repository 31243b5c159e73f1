"""From the bytes of an image file, or an array, to uint8 [H, W, C] of one size.

Images are decoded as a viewer shows them: turned upright by their EXIF tag, palettes
looked up, CMYK converted, 16 bits a channel rounded to 8 (of grey images; of colour
images Pillow keeps the upper 8), transparent parts laid on white, the first frame of
an animation. ICC profiles are not applied. Grey becomes colour by repetition, colour
becomes grey by ITU-R 601-2 luma. Resizing is that of Pillow, with antialiasing, as in
torchvision's `Resize` and `CenterCrop` of PIL images. A JPEG file is decoded at a half,
a quarter or an eighth of its size where that divides it and leaves at least twice the
pixels that are wanted, a side: 0.3 to 0.5 of 255 on average beside the whole. Whole
plain JPEG files are decoded by simplejpeg (`plain_jpeg`), to Pillow's pixels.
"""

import contextlib
import dataclasses
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cnn.data import formats, metadata, plain_jpeg
from cnn.data.images import Images, from_array
from cnn.data.options import DataOptions, find_centre
from cnn.errors import UserError
from cnn.runtime import background

if TYPE_CHECKING:
    from PIL import Image

# Threads decode large images faster, as decoding releases Python's lock, and small ones
# slower, as most of their time is Python's. By Pillow, JPEG files of 32×32 pixels
# (1 kB): 8,800 images/s in one thread, 6,400 in two; 64×64 (1.9 kB): 8,000 and 6,800;
# 96×96 (3.3 kB): 5,400 and 6,900; 224×224 (13 kB): 2,500 and 3,200.
THREADS_PAY_BYTES = 2_500
_SHARE = 8
_CALLS = 64

MAX_PIXELS = 2**26
_BITS_PER_SAMPLE = 258  # a tag of TIFF files
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
        interpolation: `bilinear`, `bicubic` or `nearest`.
    """

    size: int = 0
    channels: int = 0
    mode: str = "crop"
    resize_size: int = 0
    interpolation: str = "bilinear"


def make_layout(options: DataOptions) -> Layout:
    """Make the layout that images are brought to when they are loaded."""
    return Layout(
        size=options.stored_size,
        channels=options.channels,
        mode=options.resize_mode,
        resize_size=options.resize_size,
        interpolation=options.resize_interpolation,
    )


def decode(content: bytes, layout: Layout) -> np.ndarray:
    """Decode the bytes of an image file to uint8 [H, W, C].

    Metadata that are damaged are left out.

    Raises:
        BadImage: the bytes are empty, no image, truncated or larger than `MAX_PIXELS`.
    """
    pixels = _decode_plain(content, layout)
    if pixels is not None:
        return pixels
    try:
        return _decode(content, layout)
    except BadImage:
        stripped = metadata.strip(content)
        if stripped is not None:
            with contextlib.suppress(BadImage):
                return _decode(stripped, layout)
        raise


def _decode_plain(content: bytes, layout: Layout) -> np.ndarray | None:
    """Decode a plain JPEG file as `_decode` does, faster; None leaves it to that."""
    size = plain_jpeg.read_size(content)
    if size is None:
        return None
    height, width, components = size
    if height * width > MAX_PIXELS or _find_scale(width, height, layout) > 1:
        return None
    pixels = plain_jpeg.decode(content, components)
    if pixels is None or _is_laid_out(pixels.shape, layout):
        return pixels
    return _fit_array(pixels, layout)


def _decode(content: bytes, layout: Layout) -> np.ndarray:
    image = open_image(io.BytesIO(content))
    try:
        _shrink(image, layout)
        if damaged := metadata.find_damaged_chunk(content):
            raise BadImage(
                f"the image is truncated or damaged ({damaged} lacks its checksum)"
            )
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
    _silence_pillow()
    try:
        image = Image.open(file, formats=formats.FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage(f"the image is oversized ({error})") from error
    except Image.UnidentifiedImageError as error:
        kind = formats.name_content(formats.read_head(file))
        raise BadImage(f"the content is no image but {kind}") from error
    except Exception as error:
        raise BadImage(f"the image is truncated or damaged ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"the image is oversized: {image.width}×{image.height} pixels, "
            f"at most {MAX_PIXELS:,} are read"
        )
    return image


def _silence_pillow() -> None:
    """Keep what Pillow says of odd files off the terminal.

    What matters of it is found and said here. Unlike `warnings.catch_warnings`, a
    filter holds in all threads.
    """
    item = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if item not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("PIL").setLevel(logging.CRITICAL)


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """Return (height, width) in pixels after EXIF's rotation."""
    if _is_turned(image):
        return image.width, image.height
    return image.height, image.width


def _is_turned(image: "Image.Image") -> bool:
    """Return whether decoding will exchange width and height."""
    # Of a TIFF file Pillow gives the size of the upright image, and turns it itself.
    return image.format != "TIFF" and metadata.read_orientation(image) >= 5


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

    Raises:
        UserError: they would be too large, each or together.
    """
    n, height, width, channels = images.shape
    size, wanted = layout.size, layout.channels or channels
    if _is_laid_out(images.shape[1:], layout):
        return images
    try:
        result = np.empty((n, size or height, size or width, wanted), dtype=np.uint8)
        for i, pixels in enumerate(images):
            result[i] = _fit_array(pixels, layout)
    except (BadImage, MemoryError) as error:
        raise UserError(
            f"images of {width}x{height} cannot be brought to {size}x{size} ({error}); "
            "give smaller sizes (--image_size, --resize_size, --eval_image_size, "
            "--eval_resize_size)"
        ) from None
    return result


def _is_laid_out(shape: tuple[int, ...], layout: Layout) -> bool:
    """Return whether decoded images of a shape [H, W, C] are left as they are."""
    height, width, channels = shape
    size = layout.size
    enlarged = layout.mode == "crop" and layout.resize_size not in (0, size)
    same_size = size == 0 or (height == width == size and not enlarged)
    return same_size and layout.channels in (0, channels)


def _fit_array(pixels: np.ndarray, layout: Layout) -> np.ndarray:
    """Bring one decoded image [H, W, C] to a layout."""
    from PIL import Image

    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return _to_array(_fit(_flatten(image, layout.channels or channels), layout))


def fit_images(
    pixels: np.ndarray,
    labels: np.ndarray,
    options: DataOptions,
    names: np.ndarray,
    stamps: np.ndarray,
) -> Images:
    """Make a set of decoded images, brought to the size and channels of the options.

    Args:
        pixels: uint8 [N, H, W, C] of 1 or 3 channels.
        labels: whole numbers [N].
        names: as of `Images`.
        stamps: as of `Images`.
    """

    def refit(options: DataOptions) -> Images:
        layout = make_layout(options)
        return dataclasses.replace(
            found,
            shape=fit_arrays(pixels[:1], layout).shape[1:],
            read=lambda positions: fit_arrays(pixels[positions], layout),
            decoded=False,
        )

    fitted = fit_arrays(pixels, make_layout(options))
    found = from_array(fitted, labels, names, stamps)
    # Else the pixels as they were would stay in memory.
    is_refitted = options.for_evaluation() != options
    return dataclasses.replace(found, refit=refit if is_refitted else None)


def _shrink(image: "Image.Image", layout: Layout) -> None:
    """Have a JPEG file decoded at a fraction of its size, where enough is left."""
    if image.format not in ("JPEG", "MPO"):
        return
    height, width = upright_size(image)
    scale = _find_scale(width, height, layout)
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))


def _find_scale(width: int, height: int, layout: Layout) -> int:
    """Return by what a JPEG file's size may be divided when it is decoded."""
    if layout.size == 0:
        return 1
    wanted = _find_size(width, height, layout)
    for scale in (8, 4, 2):
        is_whole = width % scale == height % scale == 0
        if (
            is_whole
            and width // scale >= 2 * wanted[0]
            and (height // scale >= 2 * wanted[1])
        ):
            return scale
    return 1


def _upright(image: "Image.Image") -> "Image.Image":
    from PIL import Image
    from PIL.Image import Transpose

    frame = image.tile[0].extents if image.format == "GIF" and image.tile else None
    image.load()
    if frame and frame != (0, 0, *image.size):
        # Viewers show nothing around it; Pillow the first colour of the palette.
        placed = Image.new("LA" if image.mode == "L" else "RGBA", image.size)
        placed.paste(image.convert(placed.mode).crop(frame), frame[:2])
        return placed
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(metadata.read_orientation(image))
    return image if turn is None else image.transpose(turn)


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
    is_wide = image.format == "TIFF" and 32 in image.tag_v2.get(_BITS_PER_SAMPLE, ())
    if is_wide or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise BadImage("32-bit pixels have no fixed range; save 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _find_size(width: int, height: int, layout: Layout) -> tuple[int, int]:
    """Return the (width, height) that an image is resized to, before it is cut."""
    size = layout.size
    if layout.mode == "squash":
        return size, size
    if layout.mode == "pad":
        if width >= height:
            return size, max(1, round(height / width * size))
        return max(1, round(width / height * size)), size
    shorter = layout.resize_size or size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _fit(image: "Image.Image", layout: Layout) -> "Image.Image":
    """Resize an L or RGB image to the layout's square."""
    from PIL import Image

    size = layout.size
    if size == 0:
        return image
    width, height = _find_size(*image.size, layout)
    if width * height > MAX_PIXELS:
        raise BadImage(f"the image is too long: {width}×{height}")
    resampling = Image.Resampling[layout.interpolation.upper()]
    if layout.mode == "crop":
        left, top = (find_centre(side, size) for side in (width, height))
        window = (left, top, left + size, top + size)
        image = _resize(image, (width, height), resampling)
        return image if image.size == (size, size) else image.crop(window)
    image = _resize(image, (width, height), resampling)
    if image.size == (size, size):
        return image
    result = Image.new(image.mode, (size, size))
    result.paste(image, (round((size - width) / 2), round((size - height) / 2)))
    return result


def _resize(image: "Image.Image", size: tuple[int, int], how: int) -> "Image.Image":
    # Of its own size Pillow makes a copy.
    return image if image.size == size else image.resize(size, how)


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
        UserError: the first that `function` raised, by position; `Failed` of what it
            raised otherwise, OSError apart.
        OSError: likewise.
        Interrupted: a signal arrived.
    """
    starts = range(0, len(items), share)

    def call(start: int) -> list[Any]:
        found = []
        for item in items[start : start + share]:
            found.append(function(item))
            background.note()
        return found

    count = min(count_cores(), len(starts))
    with background.Pool("decodes images", count) as pool:
        jobs = [pool.start(call, start) for start in starts]
        return [result for job in jobs for result in job.result()]


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
