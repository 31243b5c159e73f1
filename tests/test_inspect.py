"""Mode inspect: what was planted is found, and nothing else is called exact."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from data import test_tfds
from fixtures_runs import run_main, train_run
from PIL import Image, ImageEnhance

from cnn.config import make_config
from cnn.data import identity, load_dataset
from cnn.data.files import format_bad
from cnn.data.statistics import compute_mean_std
from cnn.errors import UserError
from cnn.inspection import findings, likeness
from cnn.inspection.inspect import inspect
from cnn.runtime.terminal import Terminal
from cnn.training import same_data

SIZE = (120, 90)


def draw_scene(seed, size=SIZE):
    """Make an image whose frequencies fade as those of photographs do."""
    random = np.random.default_rng(seed)
    down, right = np.fft.fftfreq(size[1])[:, None], np.fft.fftfreq(size[0])
    fade = 1 / (np.hypot(down, right) + 0.02) ** 1.3
    waves = np.fft.fft2(random.normal(size=(3, size[1], size[0]))) * fade
    scene = np.fft.ifft2(waves).real.transpose(1, 2, 0)
    scene = (scene - scene.mean()) / scene.std() * 45 + 110
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def look(dataset, directory, **choices):
    """Inspect and return what was found, with the names of pairs as keys."""
    config = make_config({"dataset": str(dataset)} | choices)
    found = inspect(config, directory, Terminal())
    pairs = {
        frozenset((pair["one"]["name"], pair["other"]["name"])): pair
        for pair in found["pairs"]
    }
    assert len(pairs) == len(found["pairs"]), "each pair is named once"
    return found, pairs


# A copy's place, of which image, how it is made, and what it is.
COPIES = {
    "train/ant/same_file.png": ("train/ant/0.png", None, "bytes"),
    "train/ant/same_pixels.bmp": ("train/ant/1.png", lambda x: x, "pixels"),
    "train/ant/saved_again.jpg": ("train/ant/2.png", lambda x: x, "near"),
    "train/ant/resized.png": ("train/ant/3.png", lambda x: x.resize((70, 50)), "near"),
    "train/ant/cropped.png": (
        "train/ant/4.png",
        lambda x: x.crop((6, 4, 114, 86)),
        "near",
    ),
    "train/ant/cut.png": ("train/ant/5.png", lambda x: x.crop((0, 5, 112, 90)), "near"),
    "train/ant/brightened.png": (
        "train/ant/6.png",
        lambda x: ImageEnhance.Brightness(x).enhance(1.3),
        "near",
    ),
    "train/ant/grey.png": ("train/ant/7.png", lambda x: x.convert("L"), "near"),
    "test/bee/leak.png": ("train/bee/0.png", None, "bytes"),
    "val/bee/leak.jpg": ("train/bee/1.png", lambda x: x, "near"),
    "train/bee/conflict.bmp": ("train/ant/8.png", lambda x: x, "pixels"),
    "train/bee/wrong.jpg": ("train/ant/9.png", lambda x: x, "near"),
    "test/ant/both.webp": ("train/bee/2.png", lambda x: x, "near"),
}
FLAT = {"train/ant/white.png", "train/ant/red.png", "train/ant/slope.png"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Write a folder in which there is one of everything."""
    root = tmp_path_factory.mktemp("planted")
    seed = 0
    for part, count in (("train", 12), ("val", 2), ("test", 4)):
        for name in ("ant", "bee"):
            for number in range(count):
                seed += 1
                save(draw_scene(seed), root / part / name / f"{number}.png")
    for place, (source, change, _) in COPIES.items():
        if change is None:
            shutil.copy(root / source, root / place)
        else:
            with Image.open(root / source) as image:
                save(change(image), root / place)
    save(Image.new("RGB", SIZE, "white"), root / "train/ant/white.png")
    save(Image.new("RGB", SIZE, "red"), root / "train/ant/red.png")
    slope = np.tile(np.arange(120, dtype=np.uint8), (90, 1))
    save(Image.fromarray(slope), root / "train/ant/slope.png")
    (root / "train/bee/11.png").unlink()
    save(draw_scene(0), root / "train/bee/11.jpg", exif=b"Exif\0\0no EXIF")
    (root / "train/ant/empty.png").write_bytes(b"")
    whole = (root / "train/ant/0.png").read_bytes()
    (root / "test/bee/half.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    """Look at that folder once; return what was found, pairs by name, the place."""
    directory = tmp_path_factory.mktemp("inspected") / "there"
    return *look(f"folder:{planted}", directory), directory


def test_all_that_was_planted_is_found_and_nothing_else(found):
    _, pairs, _ = found
    planted = {
        frozenset((place, source)): kind for place, (source, _, kind) in COPIES.items()
    }
    assert {names: pair["kind"] for names, pair in pairs.items()} == planted


def test_leaks_and_conflicts_are_told_apart(found):
    _, pairs, _ = found
    for place, (source, _, _) in COPIES.items():
        pair = pairs[frozenset((place, source))]
        (part, name), (other, other_name) = (x.split("/")[:2] for x in (place, source))
        assert (pair["leak"], pair["conflict"]) == (part != other, name != other_name)


def test_bad_and_flat_images_are_listed(found):
    described, _, _ = found
    bad = {x["name"]: x["reason"] for x in described["unreadable"]}
    assert bad.keys() == {"train/ant/empty.png", "test/bee/half.png"}
    assert bad["train/ant/empty.png"] == "the file is empty"
    assert {x["name"] for x in described["flat"]} == FLAT
    assert [x["name"] for x in described["damaged"]] == ["train/bee/11.jpg"]
    assert described["parts"]["test"]["classes"] == {"ant": 5, "bee": 5}
    assert {"width": 120, "height": 90, "count": 49} in described["sizes"]
    assert described["modes"]["L"] == 2 and described["formats"]["JPEG"] == 4


def test_the_record_is_that_of_a_run_that_leaves_bad_images_out(found, planted):
    _, _, directory = found
    written = json.loads((directory / "dataset.json").read_text())
    written.pop("inspection")
    choices = {"bad_images": "skip", "image_size": 8}
    config = make_config({"dataset": f"folder:{planted}"} | choices)
    assert written == identity.make_record(load_dataset(config.data))


def test_bad_files_are_listed_as_training_lists_them(found, planted):
    _, _, directory = found
    choices = {"bad_images": "skip", "image_size": 8}
    config = make_config({"dataset": f"folder:{planted}"} | choices)
    excluded = load_dataset(config.data).excluded
    written = (directory / "bad_images.txt").read_text()
    assert written == format_bad(config.data.dataset, excluded)
    assert len(excluded) == 2 and str(planted / "test/bee/half.png") in written


def test_the_page_is_one_file_with_pictures_of_pairs(found):
    _, _, directory = found
    page = (directory / "inspect.html").read_text()
    assert sorted(x.name for x in directory.iterdir()) == [
        ".lock",
        "bad_images.txt",
        "dataset.json",
        "inspect.html",
    ]
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    titles = re.findall(r"<figcaption><h3>(.*?)</h3>", page)
    assert len(titles) == len(COPIES) + 1 + 2  # one is leak and conflict; two classes
    assert "test/bee/half.png" in page


def test_the_summary_names_pairs_and_remedies(planted, tmp_path, capsys):
    config = make_config({"dataset": f"folder:{planted}"})
    inspect(config, tmp_path, Terminal())
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum(line.startswith(("leak ", "conflict ", "repeated ")) for line in lines) == 3
    )
    (leak,) = (line for line in lines if line.startswith("leak "))
    assert "1 exact and 2 near" in leak and "2 of the test images" in leak
    assert "remove one of each" in leak
    assert any("train/bee/0.png (bee) ~ test/bee/leak.png (bee)" in x for x in lines)
    assert any("--bad_images=skip" in line for line in lines)
    assert any(line.startswith("sizes ") and "--image_size" in line for line in lines)


@pytest.mark.parametrize("choices", [{}, {"channels": 3}, {"image_size": 5}])
def test_scaling_is_that_of_training(choices, tmp_path):
    described, _ = look("digits", tmp_path, **choices)
    options = make_config(choices).data
    train = load_dataset(options).train
    mean, std = compute_mean_std(train)
    assert described["parts"]["train"]["mean"] == list(mean)
    assert described["parts"]["train"]["std"] == list(std)


@pytest.mark.parametrize("channels", [0, 1])
def test_scaling_of_files_is_that_of_training(channels, planted, tmp_path):
    choices = {"image_size": 16, "resize_mode": "pad", "channels": channels}
    described, _ = look(f"folder:{planted}", tmp_path, **choices)
    options = {"dataset": f"folder:{planted}", "bad_images": "skip"} | choices
    mean, std = compute_mean_std(load_dataset(make_config(options).data).train)
    assert described["parts"]["train"]["mean"] == list(mean)
    assert described["parts"]["train"]["std"] == list(std)


def test_digits_of_few_pixels_are_no_near_duplicates(tmp_path):
    described, pairs = look("digits", tmp_path)
    assert pairs == {} and described["flat"] == []
    record = identity.make_record(load_dataset(make_config().data))
    written = json.loads((tmp_path / "dataset.json").read_text())
    assert written["fingerprint"] == record["fingerprint"]


def test_arrays_have_exact_and_near_duplicates(tmp_path):
    scenes = np.stack([np.asarray(draw_scene(seed, (32, 32))) for seed in range(24)])
    scenes[1] = scenes[0]
    scenes[22] = np.clip(scenes[2] * 0.8, 0, 255)
    labels = np.arange(24) % 2
    np.savez(
        tmp_path / "a.npz",
        x_train=scenes[:16],
        y_train=labels[:16],
        x_test=scenes[16:],
        y_test=labels[16:],
    )
    _, pairs = look(f"npz:{tmp_path / 'a.npz'}", tmp_path / "out")
    kinds = {tuple(sorted(names)): pair["kind"] for names, pair in pairs.items()}
    assert kinds == {
        ("train/0", "train/1"): "pixels",
        ("test/6", "train/2"): "near",
    }


def test_images_of_tfds_are_looked_at_as_they_are_stored(tmp_path):
    test_tfds.prepare(tmp_path / "tfds", "tfrecord")
    choices = {"data_dir": str(tmp_path / "tfds"), "image_size": 4}
    described, _ = look("tfds:tiny", tmp_path / "out", **choices)
    options = make_config({"dataset": "tfds:tiny"} | choices).data
    train = load_dataset(options).train
    assert described["parts"]["train"]["count"] == len(train)
    assert described["parts"]["train"]["mean"] == list(compute_mean_std(train)[0])
    assert described["formats"].keys() == {"PNG"}
    assert described["sizes"][0]["width"] == 5


def test_grey_images_are_exact_copies_of_the_same_in_colour(tmp_path):
    grey = draw_scene(1).convert("L")
    save(grey, tmp_path / "data/train/a/grey.png")
    save(grey.convert("RGB"), tmp_path / "data/test/a/colour.png")
    for seed, place in enumerate(("train/a", "train/b", "test/b"), start=5):
        save(draw_scene(seed), tmp_path / "data" / place / "x.png")
    _, pairs = look(f"folder:{tmp_path / 'data'}", tmp_path / "out")
    assert [pair["kind"] for pair in pairs.values()] == ["pixels"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Write a folder of black images, of single pixels and of copies of copies."""
    root = tmp_path_factory.mktemp("odd")
    places = ["train/many/0.png", "train/one/1.png", "test/many/2.png"]
    for seed, place in enumerate([*places, "train/many/3.png"], start=50):
        save(draw_scene(seed), root / place)
    for number in range(30):
        black = Image.new("RGB", (20 + number % 3, 20))
        save(black, root / f"train/many/black{number}.png")
        save(black, root / f"test/many/black{number}.png")
        save(
            Image.new("RGB", (1, 1), (number,) * 3),
            root / f"train/many/dot{number}.png",
        )
    seen = draw_scene(50).convert("RGBA")
    save(seen, root / "test/many/opaque.png")
    shutil.copy(root / "test/many/opaque.png", root / "test/many/z_again.png")
    save(draw_scene(53).resize((60, 45)), root / "test/many/small.png")
    return root


def test_black_images_and_single_pixels_are_no_near_duplicates(odd, tmp_path):
    described, pairs = look(f"folder:{odd}", tmp_path)
    near = [names for names, pair in pairs.items() if pair["kind"] == "near"]
    assert near == [{"train/many/3.png", "test/many/small.png"}]
    sizes = [
        pair["one"]["name"].startswith("train/many/black") for pair in pairs.values()
    ]
    assert sum(sizes) == 3 * 19, "each with the first of its size"
    assert len(pairs) == 3 * 19 + 3 and len(described["flat"]) == 90
    assert described["parts"]["train"]["classes"] == {"many": 62, "one": 1}
    assert described["parts"]["test"]["classes"]["one"] == 0


def test_copies_of_one_image_and_black_ones_come_after_other_pairs(
    odd, tmp_path, capsys
):
    look(f"folder:{odd}", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    (first,) = (n for n, line in enumerate(lines) if line.startswith("leak "))
    assert "30 of them of flat images" in lines[first]
    named = [re.findall(r"\w+/many/\w+", line) for line in lines[first + 1 : first + 5]]
    assert named[:3] == [
        ["train/many/0", "test/many/opaque"],
        ["train/many/3", "test/many/small"],
        ["train/many/0", "test/many/z_again"],
    ]
    assert named[3][0].startswith("train/many/black")
    assert any(line.endswith("none of one") for line in lines)


def test_a_folder_of_bad_files_alone_is_described(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/b"):
        folder = tmp_path / "data" / place
        folder.mkdir(parents=True)
        (folder / "x.png").write_text("no image")
    os.mkfifo(folder / "pipe.png")  # is not waited for
    described, _ = look(f"folder:{tmp_path / 'data'}", tmp_path / "out")
    assert len(described["unreadable"]) == 5 and described["sizes"] == []
    assert (tmp_path / "out" / "inspect.html").exists()


def test_names_are_text_on_the_page_and_in_the_terminal(tmp_path, capsys):
    for place in ("train/<b>[red]\n", "train/y", "test/<b>[red]\n", "test/y"):
        save(draw_scene(1), tmp_path / "data" / place / "[&]\t.png")
    look(f"folder:{tmp_path / 'data'}", tmp_path / "out")
    page = (tmp_path / "out" / "inspect.html").read_text()
    assert "&lt;b&gt;[red]\\n" in page
    assert "<b>" not in page and "[red]\n" not in page
    assert r"train/<b>[red]\n/[&]\t.png (<b>[red]\n) ~" in capsys.readouterr().out


def test_it_writes_over_its_own_files_and_not_over_a_run(tmp_path):
    config = make_config({"dataset": "digits"})
    for _ in range(2):
        inspect(config, tmp_path / "own", Terminal())
    assert same_data.read_records(tmp_path / "own") == []  # nobody has trained on it
    train_run(tmp_path / "run", epochs=1, model="logistic_regression", dropout_rate=0.0)
    before = (tmp_path / "run" / "dataset.json").read_bytes()
    for name in ("nothing", "config.json"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        with pytest.raises(UserError, match="another --workdir"):
            inspect(config, tmp_path / "run", Terminal())
    assert (tmp_path / "run" / "dataset.json").read_bytes() == before
    assert not (tmp_path / "run" / "inspect.html").exists()


def test_the_default_directory_is_not_that_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_main("--mode=inspect", "--classes=0,1") == 0
    directory = tmp_path / "runs" / "digits,mode=inspect,classes=0,1"
    assert (directory / "dataset.json").exists()
    assert "written to" in capsys.readouterr().out


def make_thumbs(count):
    scenes = [draw_scene(seed, (32, 32)).convert("L") for seed in range(count)]
    return np.stack([np.asarray(scene) for scene in scenes])


def test_the_search_finds_every_pair_of_hashes_that_are_alike(monkeypatch):
    thumbs = np.repeat(make_thumbs(20), 6, axis=0)
    random = np.random.default_rng(0)
    noise = random.normal(0, 12, thumbs.shape)
    thumbs = np.clip(thumbs + noise, 0, 255).astype(np.uint8)
    whole, middle = (likeness.compute_hashes(thumbs, zoom) for zoom in (1.0, 0.9))
    wanted = {}
    for i in range(len(thumbs)):
        for j in range(i + 1, len(thumbs)):
            ends = (whole[i], whole[j]), (whole[i], middle[j]), (middle[i], whole[j])
            least = min(int(one ^ other).bit_count() for one, other in ends)
            wanted[i * len(thumbs) + j] = least
    wanted = {k: d for k, d in wanted.items() if d <= likeness.RADIUS}
    monkeypatch.setattr(likeness, "_BLOCK_BYTES", 8 * len(thumbs) * 7)
    keys, distances, crowded = likeness._search(thumbs)
    assert dict(zip(keys.tolist(), distances.tolist(), strict=True)) == wanted
    assert crowded == 0 and keys.tolist() == sorted(wanted)


def test_a_crowd_is_compared_in_part_and_hides_no_other_pair(monkeypatch):
    crowd = np.repeat(make_thumbs(1), 300, axis=0)
    crowd[np.arange(300), np.arange(300) % 32, np.arange(300) // 32] += 40
    others = make_thumbs(20)[1:]
    near = np.clip(others * 0.9, 0, 255).astype(np.uint8)
    thumbs = np.concatenate([crowd, others, near])
    monkeypatch.setattr(likeness, "MOST", 8)
    for most, fewest in ((100_000, 300), (900, 50)):
        monkeypatch.setattr(likeness, "_LEAST_PAIRS", most)
        monkeypatch.setattr(likeness, "_PAIRS_AN_IMAGE", 0)
        found = likeness.find_near(thumbs, np.full(len(thumbs), 32))
        pairs = {tuple(pair) for pair in found.pairs.tolist()}
        apart = {(300 + i, 319 + i) for i in range(19)}
        assert apart <= pairs
        inside = {pair for pair in pairs if pair[1] < 300}
        assert pairs == inside | apart
        assert fewest <= len(inside) <= min(300 * 16, most)
        assert 250 < found.crowded <= 300


def test_scenes_that_differ_are_told_apart_and_moved_ones_are_not():
    thumbs = make_thumbs(40)
    pairs = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    apart = likeness.compare(thumbs, pairs, np.ones(39, bool))
    assert apart.max() < 0.8
    large = [draw_scene(seed, (128, 128)).convert("L") for seed in range(10)]
    moved = [
        np.asarray(scene.crop(box).resize((32, 32), Image.Resampling.BILINEAR))
        for scene in large
        for box in ((0, 0, 128, 128), (8, 0, 128, 120), (5, 5, 122, 124))
    ]
    pairs = np.array([(i, i + k) for i in range(0, 30, 3) for k in (1, 2)])
    together = likeness.compare(np.stack(moved), pairs, np.ones(20, bool))
    assert together.min() > likeness.SIMILARITY


def test_scenes_of_one_light_with_other_things_in_them_are_no_near_duplicates():
    light = np.tile(np.linspace(40, 200, 32)[:, None], (1, 32)) ** 1.05
    light = light + np.linspace(-20, 30, 32) ** 2 / 30
    things = make_thumbs(40).astype(float)
    things = (things - things.mean(axis=(1, 2), keepdims=True)) * 0.15
    thumbs = np.clip(light + things, 0, 255).astype(np.uint8)
    keys, _, _ = likeness._search(thumbs)
    assert len(keys) > 10, "their hashes are alike"
    assert not len(likeness.find_near(thumbs, np.full(40, 32)).pairs)


def test_equal_images_are_compared_for_each_part_and_class():
    """A near copy of images that are equal is a leak whichever of them it is like."""
    thumb = make_thumbs(1)[0]
    near = np.clip(thumb * 0.9, 0, 255).astype(np.uint8)
    seen = [
        findings.Look(size=(32, 32), pixels=digest, thumb=image)
        for digest, image in ((b"1", thumb), (b"1", thumb), (b"2", near))
    ]
    parts = np.array(["train", "test", "train"], object)
    pairs, _, _ = findings.find_pairs(seen, parts, np.array([0, 0, 1]))
    assert [(x.one, x.other, x.kind) for x in pairs] == [
        (0, 1, "pixels"),
        (0, 2, "near"),
        (1, 2, "near"),
    ]
