"""Data are what they hold: fingerprints, what has changed, splits that stay."""

import random
import shutil
import unicodedata

import numpy as np
import pytest
from fixtures_folders import CLASSES, edit_at_random, write_folder, write_image

from cnn import data
from cnn.data import choose, identity, stamps
from cnn.data.images import from_array
from cnn.errors import UserError


def load(root, **options):
    return data.load_dataset(data.DataOptions(dataset=f"folder:{root}", **options))


def list_parts(dataset):
    parts = {name: getattr(dataset, name) for name in identity.PARTS}
    return {name: list(x.names) for name, x in parts.items() if x is not None}


def find_changes(before, after):
    return identity.list_changes(*map(identity.make_record, (before, after)))


# What each edit does to the files of a folder, and what is said of it.
EDITS = {
    "add": (
        lambda root: write_image(root / "bee/new.bmp", random.Random(9)),
        "1 added (bee/new.bmp)",
    ),
    "remove": (
        lambda root: (root / "bee/3.bmp").unlink(),
        "1 removed (bee/3.bmp)",
    ),
    "rename": (
        lambda root: (root / "bee/3.bmp").rename(root / "bee/x.bmp"),
        "1 renamed (bee/3.bmp to bee/x.bmp)",
    ),
    "relabel": (
        lambda root: (root / "bee/3.bmp").rename(root / "cow/x.bmp"),
        "1 relabelled (cow/x.bmp: bee, now cow)",
    ),
    "repaint": (
        lambda root: write_image(root / "bee/3.bmp", random.Random(9)),
        "1 of other contents (bee/3.bmp)",
    ),
    "rename a class": (
        lambda root: (root / "bee").rename(root / "dog"),
        "class bee renamed to dog",
    ),
    "remove a class": (
        lambda root: shutil.rmtree(root / "bee"),
        "1 classes removed (bee)",
    ),
    "add a class": (
        lambda root: write_folder(root, classes=["dog"], seed=3),
        "1 classes added (dog)",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_has_changed_is_said(tmp_path, name):
    before = load(write_folder(tmp_path))
    edit, line = EDITS[name]
    edit(tmp_path)
    assert any(x.startswith(line) for x in find_changes(before, load(tmp_path)))
    # Without the lists, the summary that a checkpoint has still tells.
    record, new = identity.make_record(before), identity.make_record(load(tmp_path))
    assert identity.list_changes(identity.summarise(record), new)


def test_fingerprint_does_not_depend_on_where_data_lie(tmp_path):
    record = identity.make_record(load(write_folder(tmp_path / "a")))
    shutil.copytree(tmp_path / "a", tmp_path / "deep/er/b", copy_function=shutil.copy)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for root in (f"{tmp_path}/./a/", tmp_path / "deep/er/b", tmp_path / "link"):
        for resident in ("always", "never"):
            found = identity.make_record(load(root, resident=resident))
            assert found["fingerprint"] == record["fingerprint"]
            assert not identity.list_changes(record, found)


def test_accents_that_a_file_system_takes_apart(tmp_path):
    for form, root in (("NFC", tmp_path / "a"), ("NFD", tmp_path / "b")):
        names = [unicodedata.normalize(form, name) for name in ("é", "eb", "z")]
        write_folder(root, classes=names)
        (root / names[0] / "0.bmp").rename(root / names[0] / f"{names[0]}.bmp")
    composed, apart = load(tmp_path / "a"), load(tmp_path / "b")
    assert not find_changes(composed, apart)


def test_table_moves_with_its_images(tmp_path):
    write_folder(tmp_path / "a")
    paths = sorted((tmp_path / "a").glob("*/*.bmp"))
    rows = [f"./{p.relative_to(tmp_path / 'a')},{p.parent.name}" for p in paths]
    (tmp_path / "a/list.csv").write_text("path,label\n" + "\n".join(rows))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    table, moved = (
        data.load_dataset(data.DataOptions(dataset=f"csv:{tmp_path}/{x}/list.csv"))
        for x in "ab"
    )
    assert not find_changes(table, moved)
    # The same files and labels are the same data, listed or in folders.
    assert not find_changes(table, load(tmp_path / "a"))


def test_one_label_of_an_archive(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4), np.uint8)
    parts = {"x_train": pixels, "y_train": np.arange(9) % 3}
    parts |= {"x_test": pixels[:3], "y_test": np.arange(3)}
    np.savez(tmp_path / "a.npz", **parts)
    np.savez_compressed(tmp_path / "b.npz", **parts)
    parts["y_train"][5] = 0
    pixels[1, 2, 3] ^= 1
    np.savez(tmp_path / "c.npz", **parts)
    a, b, c = (
        data.load_dataset(data.DataOptions(dataset=f"npz:{tmp_path}/{x}.npz"))
        for x in "abc"
    )
    assert not find_changes(a, b)
    lines = find_changes(a, c)
    assert "1 relabelled (train/5: 2, now 0)" in lines
    assert "2 of other contents (train/1, test/1)" in lines
    record = identity.make_record(a)
    found = identity.find_trained(identity.describe(c.test), [record])
    assert found == ["test/0", "test/2"]


def test_arrays_are_hashed_whole():
    pixels = np.zeros((2, 300, 300, 1), np.uint8)
    before = stamps.stamp_arrays(pixels)
    pixels[1, 100, 7] = 1
    assert (stamps.stamp_arrays(pixels) == before).tolist() == [True, False]


def test_rows_of_a_table_are_known_by_where_they_are_below_it(tmp_path):
    root = write_folder(tmp_path / "a")
    files = sorted(x.relative_to(root) for x in root.rglob("*.*") if x.is_file())
    records = []
    for name, base in (("relative", ""), ("absolute", f"{root}/")):
        rows = [f"{base}{file},{file.parent}" for file in files]
        (root / f"{name}.csv").write_text("\n".join(["path,label", *rows]))
        options = data.DataOptions(dataset=f"csv:{root}/{name}.csv")
        records.append(identity.make_record(data.load_dataset(options)))
    assert records[0]["fingerprint"] == records[1]["fingerprint"]


def test_large_files_are_not_read_in_full(tmp_path):
    content = bytearray(random.Random(0).randbytes(10**6))

    class Counted:
        count = 0

        def seek(self, start):
            self.start = start

        def read(self, length):
            self.count += length
            return bytes(content[self.start : self.start + length])

    file = Counted()
    stamp = stamps.stamp_file(file, len(content))
    assert stamp == stamps.stamp_bytes(bytes(content)) and file.count < 10**5
    for place in (0, len(content) // 2, len(content) - 1):
        content[place] ^= 1
        assert stamps.stamp_bytes(bytes(content)) != stamp
        content[place] ^= 1
    assert stamps.stamp_bytes(bytes(content[:-1])) != stamp


def test_file_that_changes_while_it_is_streamed(tmp_path):
    dataset = load(write_folder(tmp_path), resident="never")
    write_image(tmp_path / dataset.train.names[0], random.Random(5))
    with pytest.raises(UserError, match="has changed since the start"):
        dataset.train.read(np.array([0]))


def test_bytes_that_the_stamp_leaves_out_are_compared_once_read():
    content = random.Random(0).randbytes(2**16 + 1)
    changed = bytearray(content)
    changed[20_000] ^= 1
    stamp = stamps.stamp_bytes(content)
    assert stamps.stamp_bytes(bytes(changed)) == stamp
    expected = stamps.Expected(np.array([stamp, stamp], object))
    assert expected.is_met(0, content) and expected.is_met(0, content)
    assert not expected.is_met(0, bytes(changed)) and expected.is_met(0, content)
    assert expected.is_met(1, bytes(changed)), "of its own: first read as this"
    assert not expected.is_met(1, content) and not expected.is_met(1, content[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_files_that_come_and_go_move_no_other(tmp_path, seed):
    options = {"validation_fraction": 0.2, "split_seed": seed}
    write_folder(tmp_path, each=30)
    before = list_parts(load(tmp_path, **options))
    write_folder(tmp_path / "more", each=10, seed=1)
    for name in CLASSES:
        for path in (tmp_path / "more" / name).iterdir():
            path.rename(tmp_path / name / f"new{path.name}")
        (tmp_path / name / "7.bmp").unlink()
    shutil.rmtree(tmp_path / "more")
    after = list_parts(load(tmp_path, **options))
    for part, names in before.items():
        left = [name for name in names if not name.endswith("/7.bmp")]
        assert [name for name in after[part] if "new" not in name] == left


@pytest.mark.parametrize("each", [2, 3, 5])
def test_every_class_is_trained_and_tested(tmp_path, each):
    write_folder(tmp_path, each=each)
    for seed in range(20):
        dataset = load(tmp_path, split_seed=seed)
        for part in (dataset.train, dataset.test):
            assert set(part.labels) == {0, 1, 2}
        assert any("1 to" in note for note in dataset.notes)


def test_a_single_image_of_a_class_is_trained(tmp_path):
    write_folder(tmp_path, each=5)
    write_folder(tmp_path, each=1, classes=["dog"])
    for seed in range(20):
        assert "dog/0.bmp" in load(tmp_path, split_seed=seed).train.names


def test_a_fifth_is_tested():
    count, labels = 4000, np.arange(4000) % 4
    names = np.array([f"{i}.png" for i in range(count)], object)
    images = from_array(np.zeros((count, 1, 1, 1), np.uint8), labels, names)
    sizes = [len(choose.split_by_name(images, 0.2, s, "test")[1]) for s in range(20)]
    # 20 means of 4000 draws: the deviation of their mean is 5.7.
    assert abs(np.mean(sizes) - 800) < 25 and 10 < np.std(sizes) < 50
    tested = choose.split_by_name(images, 0.2, 0, "test")[1]
    validated = choose.split_by_name(images, 0.2, 0, "validation")[1]
    assert 100 < len(np.intersect1d(tested, validated)) < 220


def test_subset_of_files_changes_by_one(tmp_path):
    write_folder(tmp_path, each=20)
    before = set(load(tmp_path, train_examples=12).train.names)
    assert sorted(name[:3] for name in before) == sorted(CLASSES * 4)
    for i in range(8):
        write_image(tmp_path / f"ant/new{i}.bmp", random.Random(i))
        after = set(load(tmp_path, train_examples=12).train.names)
        assert len(after) == 12 and len(after - before) <= 1
        before = after


def describe(dataset):
    """Return everything that training and testing depend on."""
    found = [dataset.class_names]
    for name in identity.PARTS:
        part = getattr(dataset, name)
        if part is not None:
            found.append((name, part.read(np.arange(len(part))).tobytes()))
            found.append((name, part.labels.tolist(), list(part.names)))
    return found


def check_random_edits(root, count):
    differ = 0
    for seed in range(count):
        draws = random.Random(seed)
        shutil.rmtree(root, ignore_errors=True)
        write_folder(root, seed=seed)
        options = {"validation_fraction": 0.2, "split_seed": seed % 3}
        if seed % 2:
            options["train_examples"] = 9
        before = load(root, **options)
        for _ in range(draws.randint(1, 3)):
            if (root / "bee").is_dir():
                edit_at_random(root, draws)
        after = load(root, **options)
        is_same = describe(before) == describe(after)
        assert bool(find_changes(before, after)) != is_same, seed
        differ += not is_same
    assert 0.5 * count < differ < count


def test_random_edits_are_never_missed(tmp_path):
    check_random_edits(tmp_path / "images", 20)


@pytest.mark.slow
def test_many_random_edits_are_never_missed(tmp_path):
    check_random_edits(tmp_path / "images", 1000)
