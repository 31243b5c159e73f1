"""Diagrams of architectures as SVG: what is written, where it goes, that it fits."""

import base64
import functools
import re
import xml.etree.ElementTree as ET

import browser
import pytest
from fixtures_runs import run_main

from cnn import models
from cnn.models.options import ModelOptions
from cnn.visualize.compute import architecture
from cnn.visualize.lecture import architectures, diagram, wording

NAMES = ("mlp", "alexnet_2012", "resnet20", "densenet_bc_22_12", "googlenet")
# Of each text, by how much it leaves the box around it; all fonts that may be there.
OVERFLOWS = """
const found = [];
for (const font of ["Arial", "DejaVu Sans"]) {
  const svg = document.documentElement;
  svg.style.fontFamily = font;
  const rects = [...svg.querySelectorAll("rect")].map(x => x.getBBox());
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBBox(), y = box.y + box.height / 2;
    const around = rects.filter(r => r.x <= box.x + 1 && r.x + r.width > box.x + 1
      && r.y <= y && r.y + r.height >= y);
    around.sort((a, b) => a.width * a.height - b.width * b.height);
    const own = around[0] || {x: 0, width: svg.viewBox.baseVal.width};
    const beyond = Math.max(box.x + box.width - own.x - own.width, own.x - box.x);
    if (beyond > 0) found.push([text.textContent, font, beyond]);
  }
}
return found;
"""


@functools.cache
def draw(name):
    size, channels, classes = models.get_published_input(name)
    model = models.create_model(ModelOptions(model=name), classes)
    found = architecture.find_architecture(model, (size, size, channels))
    return found, diagram.draw(found, name)


@functools.cache
def draw_blocks():
    return architectures.draw_wide_resnet_blocks()


def list_texts(name):
    return draw(name)[1].list_texts(0)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_svg_of_a_size_that_can_be_read(name):
    found, drawing = draw(name)
    root = ET.fromstring(drawing.to_svg())
    (
        title,
        *_,
    ) = (x.text for x in root if x.tag.endswith("title"))
    assert name in title and drawing.width <= 900
    description = next(x.text for x in root if x.tag.endswith("desc"))
    assert description == "; ".join(wording.describe(found))
    for element in root.iter("{http://www.w3.org/2000/svg}rect"):
        if element.get("width") != "100%":
            x, y, width, height = (
                float(element.get(n)) for n in ("x", "y", "width", "height")
            )
            assert 0 <= x and x + width <= drawing.width
            assert 0 <= y and y + height <= drawing.height


def test_what_is_written_of_a_layer():
    assert "conv 3×3, 16 · batch norm · ReLU" in list_texts("resnet20")
    texts = list_texts("alexnet_2012")
    assert texts[:2] == ["alexnet_2012", "60,965,224 parameters · 724.4 M MACs"]
    place = texts.index("conv 5×5, 256, 2 groups · ReLU")
    assert texts[place + 2 : place + 4] == [
        "stage2_conv · 27×27×256 · 307,456 parameters",
        "223.9 M MACs · sees 51×51 px",
    ]
    assert "head · 1000 units · 4,097,000 parameters" in texts


def test_repeats_are_drawn_once_with_what_all_have():
    texts = list_texts("densenet_bc_22_12")
    assert "×3 stage1_layer1 … stage1_layer3" in texts
    found, _ = draw("densenet_bc_22_12")
    repeat = next(x for x in found.body if isinstance(x, architecture.Repeat))
    total = sum(x.parameters for x in architecture.list_steps((repeat,)))
    assert any(text.startswith(f"{total:,} parameters in all") for text in texts)
    assert any("sees 3×3…7×7 px" in text for text in texts)
    assert "32×32×36…60" in texts
    assert texts.count("stage1_layer2") == 0


def test_what_trains_alone_is_said():
    texts = list_texts("googlenet")
    assert "stage2_block1_aux · in training alone" in texts
    found, _ = draw("googlenet")
    told = "; ".join(wording.describe(found))
    assert "in training alone: stage2_block4_aux, 3,191,016 parameters" in told
    assert found.parameters == 13_004_888


def test_branches_are_in_the_order_of_their_concatenation():
    found, _ = draw("googlenet")
    stages = [x for x in found.body if isinstance(x, architecture.Stage)]
    branches = stages[0].body[0].body[0].branches
    widths = [architecture.find_last(x[-1]).shape[-1] for x in branches]
    assert widths == [64, 128, 32, 32]  # the pooling, which is computed first, is last
    assert "branch 4 (max pool 3×3" in "; ".join(wording.describe(found))


def test_texts_are_broken_between_words_and_names_lose_their_middle():
    pieces = ["a" * 30 + "b" * 30, "short", "1,234,567 parameters", "end"]
    rows = diagram._break(pieces, 90, "detail")
    assert rows[0].startswith("aaa") and rows[0].endswith("bbb") and "…" in rows[0]
    assert rows[1:] == ["short", "1,234,567", "parameters", "end"]
    assert max(diagram._length(row, "detail") for row in rows) <= 90.1
    assert diagram._break(pieces[1:], 200, "detail") == [
        "short · 1,234,567 parameters",
        "end",
    ]


@pytest.mark.skipif(not (browser.DRIVER and browser.BINARY), reason="no chromium")
def test_no_text_leaves_its_box_in_a_browser(tmp_path):
    drawings = {name: draw(name)[1] for name in NAMES}
    drawings["blocks"] = draw_blocks()
    with browser.start_browser(tmp_path) as page:
        for name, drawing in drawings.items():
            path = tmp_path / f"{name}.svg"
            path.write_text(drawing.to_svg(), encoding="utf-8")
            page.open(path)
            assert page.run(OVERFLOWS) == [], name


def test_the_four_blocks_of_wide_resnets():
    blocks = {
        n: architectures.find_block(x) for n, (_, x) in architectures.BLOCKS.items()
    }
    assert list(blocks) == ["basic", "bottleneck", "basic-wide", "wide-dropout"]
    titles = {
        name: [step.title for step in architecture.list_steps((block,))]
        for name, block in blocks.items()
    }
    before = ["batch norm", "ReLU"]
    assert titles["basic"] == [*before, "conv 3×3, 16", *before, "conv 3×3, 16", "+"]
    assert [x for x in titles["bottleneck"] if "conv" in x] == [
        "conv 1×1, 16",
        "conv 3×3, 16",
        "conv 1×1, 16",
    ]
    assert [x.replace("64", "16") for x in titles["basic-wide"]] == titles["basic"]
    wide, dropped = titles["basic-wide"], titles["wide-dropout"]
    assert dropped == [*wide[:5], "dropout", *wide[5:]]
    for block in blocks.values():
        fork = block.body[0]
        assert len(block.body) == 1 and fork.branches[1] == ()
    told = " ".join(draw_blocks().list_texts(0))
    assert told.count("2,336 parameters") == 3 and told.count("36,992") == 4


def test_describe_draws_the_model_that_would_be_trained(tmp_path, capsys):
    flags = "--mode=describe", "--widths=4,5", f"--workdir={tmp_path / 'run'}"
    assert run_main(*flags) == 0
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["describe.json"]
    for pictures in ("architecture", "all"):
        (tmp_path / "run" / "describe.json").unlink()
        assert run_main(*flags, f"--pictures={pictures}") == 0
        path = tmp_path / "run" / "architecture.svg"
        assert f"written to {path}" in capsys.readouterr().out
        assert "conv 3×3, 5 · batch norm · ReLU" in path.read_text(encoding="utf-8")
        path.unlink()
    flags = "--mode=describe", "--model=wrn_10_1", f"--workdir={tmp_path / 'wide'}"
    flags += "--image_size=32", "--dropout_rate=0.3", "--pictures=architecture"
    assert run_main(*flags) == 0
    text = (tmp_path / "wide" / "architecture.svg").read_text(encoding="utf-8")
    assert "dropout" in text


@pytest.mark.parametrize("name", ["kernels", "lecture", "kernel"])
def test_describe_refuses_other_pictures(name, tmp_path, capsys):
    flags = "--mode=describe", f"--pictures={name}", f"--workdir={tmp_path / 'run'}"
    assert run_main(*flags) == 2
    assert f"--pictures={name}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["checkpoint=best", "picture_channels=3", "output=x"])
def test_describe_draws_no_weights_and_refuses_what_chooses_them(flag, capsys):
    assert run_main("--mode=describe", "--pictures=architecture", f"--{flag}") == 2
    assert f"--{flag} would have no effect" in capsys.readouterr().err


def test_the_report_shows_the_architecture(trained, tmp_path):
    flags = "--mode=visualize", "--pictures=architecture", f"--workdir={trained}"
    assert run_main(*flags, f"--output={tmp_path}") == 0
    drawn = (tmp_path / "pictures" / "architecture.svg").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    content = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)"', page)[1]
    assert base64.b64decode(content).decode() == drawn
    assert "Layers that are alike are drawn once." in page
