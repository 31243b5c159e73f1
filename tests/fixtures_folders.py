"""Small folders of images, and edits of them."""

import random

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def write_image(path, random):
    """Write a BMP: equal in size whatever is in it, and without a checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.frombuffer(random.randbytes(16), np.uint8).reshape(4, 4)
    Image.fromarray(pixels).save(path)


def write_folder(root, each=8, classes=CLASSES, seed=0):
    draws = random.Random(seed)
    for name in classes:
        for i in range(each):
            write_image(root / name / f"{i}.bmp", draws)
    return root


def edit_at_random(root, draws):
    """Change a folder at random; some changes are none for who loads it."""
    files = sorted(path for path in root.glob("*/*.*") if path.name[0] != ".")
    path, other = draws.choice(files), draws.choice(files)
    kind = draws.randrange(9)
    if kind == 0:
        write_image(root / draws.choice(CLASSES) / f"{draws.random()}.bmp", draws)
    elif kind == 1:
        path.unlink()
    elif kind == 2:
        path.rename(path.with_name(f"{draws.random()}.bmp"))
    elif kind == 3:
        path.rename(root / draws.choice(CLASSES) / f"{draws.random()}.bmp")
    elif kind == 4:
        write_image(path, draws)
    elif kind == 5:
        path.rename(root / "aside")
        other.replace(path) if other.exists() else None
        (root / "aside").rename(other)
    elif kind == 6:
        (root / "bee").rename(root / draws.choice(["abe", "dog"]))
    elif kind == 7:
        path.touch()
    else:
        (path.parent / ".hidden.bmp").write_bytes(b"not seen")
