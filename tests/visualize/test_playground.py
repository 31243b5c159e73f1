"""The playground: the network as plain data, and what the page computes of it."""

import base64
import dataclasses
import io
import json
import re
from pathlib import Path

import browser
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import run_main, train_run
from PIL import Image

from cnn.augment import geometry
from cnn.data import decode
from cnn.data.decode import Layout
from cnn.errors import UserError
from cnn.models import options
from cnn.models.layers import Layers
from cnn.ops import scaling
from cnn.visualize.compute import playground
from cnn.visualize.named_run import load_run

PAGE = Path(playground.__file__).parent.parent / "page"
needs_browser = pytest.mark.skipif(
    not (browser.DRIVER and browser.BINARY), reason="chromium and its driver are absent"
)
LOAD = "const network = Network.load(arguments[0]);"
RUN = "network.run(Float32Array.from(arguments[1]))"
FIND = "const page = document.querySelector('.playground').playground;"


class Everything(nn.Module):
    """Every operation that a model of ours makes, on few numbers."""

    layers: Layers

    @nn.compact
    def __call__(self, x, train=False):
        """Map images [N, 8, 8, 3] to logits [N, 4]."""
        x = self.layers.conv(6, 3, use_bias=True, name="first")(x)
        x = nn.relu(self.layers.norm(name="norm")(x, train))
        self.sow("features", "stage1_out", x)
        alone = nn.Conv(6, (3, 3), feature_group_count=6, kernel_dilation=2)(x)
        gate = nn.sigmoid(jnp.mean(x, axis=(1, 2)))[:, None, None, :]
        x = jnp.concatenate([alone * gate, jnp.broadcast_to(gate, x.shape)], axis=-1)
        x = nn.elu(nn.Conv(8, (2, 3), strides=(1, 2), feature_group_count=2)(x))
        x = nn.max_pool(x, (2, 2), (2, 1)) + nn.avg_pool(x, (2, 2), (2, 1))
        x = nn.LayerNorm(name="rows")(x)
        x = nn.gelu(jnp.clip(x, -1, 1), approximate=False) + jnp.tanh(x) ** 3
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 2)))
        x = jax.lax.slice_in_dim(x, 1, None, axis=2)
        self.sow("features", "stage2_out", x)
        x = x[:, ::2, ::2] * jax.lax.rsqrt(1.5 + jnp.max(x, axis=(1, 2), keepdims=True))
        kernel = self.param("places", nn.initializers.normal(), (x.shape[2], 10, 3))
        x = jnp.einsum("nwc,wck->nwk", jnp.sum(x, axis=1), kernel)
        return self.layers.dense(4, name="head")(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def run(trained):
    """Return the tiny run of digits."""
    return load_run(trained)


def give_module(trained, monkeypatch):
    """Return a run of `Everything`, its variables at random, and its function."""
    module = Everything(Layers.from_options(options.ModelOptions(), jnp.float32))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    random = np.random.default_rng(0)
    shapes = {name: shapes[name] for name in ("params", "batch_stats")}
    variables = jax.tree.map(
        lambda x: (
            random.uniform(0.1, 0.9, x.shape).astype(np.float32) - 0.2 * (x.ndim > 1)
        ),
        shapes,
    )
    structure = dataclasses.replace(
        trained.structure, model=module, num_classes=4, mean=(0.4,) * 3, std=(0.3,) * 3
    )
    monkeypatch.setattr(playground, "make_structure", lambda trained: structure)
    changed = dataclasses.replace(
        trained, structure=structure, variables=variables, image_shape=(8, 8, 3)
    )

    def compute(images):
        scaled = scaling.scale_images(images, structure.mean, structure.std)
        return module.apply(variables, scaled)

    return changed, compute


def make_images(count, *shape):
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return a browser, and a page of the scripts without a playground."""
    directory = tmp_path_factory.mktemp("scripts")
    names = ("network", "pixels", "playground")
    scripts = [f"<script>{(PAGE / f'{x}.js').read_text()}</script>" for x in names]
    path = directory / "scripts.html"
    path.write_text("<!doctype html><meta charset=utf-8>" + "".join(scripts))
    with browser.start_browser(directory) as found:
        yield found, path


@pytest.fixture(scope="module")
def page(opened, trained, tmp_path_factory):
    """Return a browser at the report of the tiny run, with its playground."""
    output = tmp_path_factory.mktemp("report")
    flags = "--mode=visualize", "--pictures=playground", f"--workdir={trained}"
    assert run_main(*flags, f"--output={output}") == 0
    opened[0].open(output / "report.html")
    yield opened[0], output
    assert opened[0].read_log("browser") == []


def test_the_interpreter_has_the_operations_that_are_let_through():
    text = (PAGE / "network.js").read_text()
    table = re.search(r"const operators = \{\n(.*?)\n  \};", text, re.DOTALL)[1]
    assert (
        set(re.findall(r"^    (\w+): ", table, re.MULTILINE)) == playground.OPERATIONS
    )


@needs_browser
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
def test_every_operation_has_its_value_and_its_slope(run, monkeypatch, opened):
    trained, compute = give_module(run.trained, monkeypatch)
    images = make_images(3, 8, 8, 3).astype(np.float32)
    monkeypatch.setattr(playground, "TOLERANCE", 0.0)  # float32, whatever differs
    network = playground.make_network(trained, images.astype(np.uint8))
    used = {node["op"] for node in network.description["operations"]}
    assert used == playground.OPERATIONS
    logits, slopes = jax.vjp(jax.jit(compute), images)
    wanted = slopes(jnp.zeros_like(logits).at[:, 2].set(1))[0]
    found, path = opened
    found.open(path)
    both = f"return [Array.from({RUN}), Array.from(network.differentiate(2))]"
    for image, own, slope in zip(images, logits, wanted, strict=True):
        given = network.description, image.ravel().tolist()
        values, gradient = found.run(LOAD + both, *given)
        np.testing.assert_allclose(values, own, rtol=1e-5, atol=1e-5)
        most = float(np.abs(slope).max())
        np.testing.assert_allclose(gradient, slope.ravel(), atol=1e-4 * most)


@needs_browser
def test_the_page_computes_the_logits_of_the_run(run, page):
    found, _ = page
    images = make_images(100, 8, 8, 1)
    code = FIND + "return arguments[0].map((x) => Array.from(page.network.run(x)))"
    logits = found.run(code, images.reshape(100, -1).tolist())
    assert np.abs(np.array(logits) - run.predict(images)).max() < 1e-3
    requests = [x for x in found.list_requests() if not x.startswith("data:")]
    assert all(x.startswith("file:") for x in requests)


@needs_browser
def test_a_stroke_changes_the_image_the_classes_and_the_maps(page):
    found, _ = page
    read = "return [page.compose().image.data, page.probabilities, page.stages[0].data]"
    code = FIND + "page.choose(Pixels.make(8, 8, 1)); page.update();" + read
    black = found.run(code)
    assert set(list_values(black[0])) == {0}
    drawn = found.run(
        FIND + "page.pad.setPointerCapture = () => {};"
        "const box = page.pad.getBoundingClientRect();"
        "const send = (type, x, y) => page.pad.dispatchEvent(new PointerEvent(type, {"
        "  pointerId: 1, buttons: 1, clientX: box.left + box.width * x,"
        "  clientY: box.top + box.height * y }));"
        "send('pointerdown', 0.5, 0.1); send('pointermove', 0.5, 0.9);"
        "send('pointerup', 0.5, 0.9); page.update();" + read
    )
    image = np.array(list_values(drawn[0])).reshape(8, 8)
    assert (image[2:6, 3:5] > 100).all() and (image[:, [0, 7]] == 0).all()
    levels = {(n * 255 + 8) // 16 for n in range(17)}  # those of the digits
    assert set(image.ravel().tolist()) <= levels
    assert drawn[1] != black[1] and drawn[2] != black[2]
    assert sum(drawn[1]) == pytest.approx(1)


def list_values(array):
    """Return what WebDriver makes of a typed array as a list."""
    return [array[str(i)] for i in range(len(array))] if type(array) is dict else array


@needs_browser
def test_keys_shift_and_the_cover_is_the_mean(run, page):
    found, _ = page
    before = found.run(
        FIND + "page.choose(page.samples[3].image); page.update();"
        "return Array.from(page.compose().image.data)"
    )
    press = "page.pad.dispatchEvent(new KeyboardEvent('keydown', { key: '%s' }));"
    after = found.run(
        FIND
        + press % "ArrowRight"
        + press % "ArrowDown"
        + "return Array.from(page.compose().image.data)"
    )
    before, after = (np.array(x).reshape(8, 8) for x in (before, after))
    assert before.any()
    np.testing.assert_array_equal(after[1:, 1:], before[:-1, :-1])
    assert not after[0].any() and not after[:, 0].any()
    covered = found.run(
        FIND + "page.reset(); page.set('size', 3); page.set('row', 2);"
        "page.set('column', 4); return Array.from(page.compose().input)"
    )
    covered, mean = np.array(covered).reshape(8, 8), run.trained.structure.mean[0]
    np.testing.assert_allclose(covered[2:5, 4:7], 255 * mean, rtol=1e-6)
    covered[2:5, 4:7] = before[2:5, 4:7]
    np.testing.assert_array_equal(covered, before)


@needs_browser
def test_a_pixel_is_the_sum_of_its_window(page):
    found, _ = page
    cells, sums, bias, value = found.run(
        FIND + "page.choose(page.samples[2].image); page.update();"
        "const way = page.network.follow(page.stages[0].value, 3 * 64 + 8 * 7 + 5);"
        "const { step, index } = way.at(-1), one = step.explain(3, 7, 5, 0);"
        "return [one.cells, one.sums, one.bias, step.output.data[index]]"
    )
    products = [cell["value"] * cell["weight"] for row in cells for cell in row]
    assert sum(products) == pytest.approx(sums[0], rel=1e-5)
    assert sum(sums) + (bias or 0) == pytest.approx(value, rel=1e-5)
    outside = [[cell["isOutside"] for cell in row] for row in cells]
    assert outside == [[False] * 3, [False] * 3, [True] * 3]


@needs_browser
@pytest.mark.parametrize("degrees, right, down", [(0, 1, -2), (30, 0, 0), (-75, 2, 1)])
def test_moves_are_those_of_augmentation(degrees, right, down, opened):
    found, path = opened
    image = make_images(1, 9, 8, 3)
    moved = found.run(
        "return Array.from(Pixels.move(arguments[0], arguments[1]).data)",
        {"height": 9, "width": 8, "channels": 3, "data": image.ravel().tolist()},
        {"degrees": degrees, "right": right, "down": down},
    )
    numbers = (jnp.array([float(x)]) for x in (degrees, 1, 0, right, down))
    wanted = geometry.transform(image, geometry.invert_affine(*numbers))
    difference = np.array(moved) - np.asarray(wanted, np.int64).ravel()
    assert np.abs(difference).max() <= 1  # where a half is rounded


@needs_browser
@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("width, height", [(37, 23), (5, 7)])
def test_files_are_brought_to_size_as_the_run_brings_them(
    mode, interpolation, width, height, page
):
    found, _ = page
    pixels = make_images(1, height, width, 3)[0]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    channels = 1 if mode == "pad" else 3
    layout = Layout(8, channels, mode, 0, interpolation)
    wanted = decode.decode(content.getvalue(), layout)
    code = """
    const bytes = Uint8Array.from(atob(arguments[0]), (x) => x.charCodeAt(0));
    const bitmap = createImageBitmap(new Blob([bytes], { type: "image/png" }));
    return bitmap.then((bitmap) => {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
      const context = canvas.getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const all = context.getImageData(0, 0, canvas.width, canvas.height);
      const flat = Pixels.flatten(all, arguments[1]);
      return Array.from(Pixels.fit(flat, arguments[2]).data);
    });
    """
    sent = base64.b64encode(content.getvalue()).decode()
    fitted = found.run(code, sent, channels, dataclasses.asdict(layout))
    np.testing.assert_array_equal(fitted, wanted.ravel())


@needs_browser
def test_a_dropped_file_is_taken_and_one_that_is_none_is_said(page):
    found, _ = page
    content = io.BytesIO()
    pixels = make_images(1, 8, 8, 1)[0]
    Image.fromarray(pixels[..., 0]).save(content, "PNG")
    open_file = (
        FIND
        + "const bytes = Uint8Array.from(atob(arguments[0]), (x) => x.charCodeAt(0));"
        "return page.open(new File([bytes], 'one.png')).then(() =>"
        "[page.problem.hidden, page.problem.textContent, Array.from(page.base.data)])"
    )
    sent = base64.b64encode(content.getvalue()).decode()
    is_fine, _, taken = found.run(open_file, sent)
    assert is_fine and taken == pixels.ravel().tolist()
    is_fine, text, kept = found.run(open_file, base64.b64encode(b"text").decode())
    assert not is_fine and text.startswith("one.png cannot be taken: ")
    assert kept == taken


@needs_browser
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(width, page):
    found, output = page
    found.open(output / "report.html", width=width, height=844)
    code = "return document.documentElement.scrollWidth"
    assert found.run(code) <= width


def test_weights_are_halved_where_no_answer_changes(run, monkeypatch):
    images = make_images(30, 8, 8, 1)
    monkeypatch.setattr(playground, "TOLERANCE", 1.0)
    halved = playground.make_network(run.trained, images)
    monkeypatch.setattr(playground, "TOLERANCE", 0.0)
    whole = playground.make_network(run.trained, images)
    kinds = [
        {x["type"] for x in one.description["constants"] if len(x["shape"]) > 1}
        for one in (halved, whole)
    ]
    assert "float16" in kinds[0] and "float16" not in kinds[1]
    assert 0 < halved.rounding < 0.1 and whole.rounding is None
    assert halved.num_bytes < whole.num_bytes


def test_a_changed_class_keeps_the_weights_whole(run, monkeypatch):
    monkeypatch.setattr(playground, "TOLERANCE", np.inf)
    turned = jax.tree.map(lambda x: -np.asarray(x), run.trained.variables)
    monkeypatch.setattr(playground, "round_kernels", lambda variables: turned)
    network = playground.make_network(run.trained, make_images(30, 8, 8, 1))
    assert network.rounding is None


def test_large_weights_are_refused_and_the_rest_is_drawn(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(playground, "LIMIT", 100)
    flags = "--mode=visualize", "--pictures=curves,playground"
    flags += f"--workdir={trained}", f"--output={tmp_path}"
    assert run_main(*flags) == 0
    assert "0.0 MB, and a page holds 0.0001 MB" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    assert "and a page holds 0.0001 MB" in text and "<figure" in text
    assert "Network.load" not in text


def test_an_operation_that_the_page_lacks_is_named(run, monkeypatch):
    known = playground.OPERATIONS - {"Relu"}
    monkeypatch.setattr(playground, "OPERATIONS", known)
    with pytest.raises(UserError, match="cannot compute Relu of .*network.js"):
        playground.make_network(run.trained, make_images(2, 8, 8, 1))


def test_shuffled_pixels_cannot_be_drawn(tmp_path, capsys):
    train_run(tmp_path / "run", shuffle_pixels=True, epochs=1)
    flags = "--mode=visualize", "--pictures=playground"
    assert run_main(*flags, f"--workdir={tmp_path / 'run'}") == 2
    assert "its images are shuffled pixels" in capsys.readouterr().err


def test_names_of_classes_end_no_script(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cnn.visualize.subject.Subject.get_class_names",
        lambda subject, run: ("</script><b>", *"123456789"),
    )
    flags = "--mode=visualize", "--pictures=playground", f"--workdir={trained}"
    assert run_main(*flags, f"--output={tmp_path}") == 0
    text = (tmp_path / "report.html").read_text()
    assert "</script><b>" not in text
    stored = json.loads((tmp_path / "pictures/playground.json").read_text())
    assert stored["classes"][0] == "</script><b>"
