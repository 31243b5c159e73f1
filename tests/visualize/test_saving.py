"""A picture's file is cut where nothing is drawn any more."""

import io

import numpy as np
from PIL import Image

from cnn.visualize.draw import picture


def make():
    figure = picture.make_figure(4, 3)
    axes = figure.subplots(1, 2)
    shown = axes[0].imshow(np.arange(12).reshape(3, 4))
    axes[1].plot([1, 2, 4], label="a line")
    axes[1].set_ylabel("a long label\nof two lines")
    figure.colorbar(shown, ax=axes[0])
    figure.legend(loc="outside lower center")
    figure.suptitle("a title that is broader than all that stands below it, by far")
    return figure


def test_a_png_is_what_matplotlib_cuts_itself(tmp_path):
    with picture.use_style():
        path = tmp_path / "one.png"
        picture.save(make(), path, "", "", is_line_art=True)
        figure, expected = make(), io.BytesIO()
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        margin = {"bbox_inches": "tight", "pad_inches": 0.1}
        figure.savefig(expected, format="png", dpi=110, **margin)
    with Image.open(path) as image, Image.open(expected) as other:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(other))
    assert path.with_suffix(".svg").stat().st_size > 1000
