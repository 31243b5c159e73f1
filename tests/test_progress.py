import io
import json
import sys
import threading
import types

import numpy as np
import pytest
from fixtures_events import read_events, read_scalars, read_tags
from PIL import Image
from rich.console import Console

from cnn.errors import UserError
from cnn.runtime import terminal
from cnn.runtime.metrics_log import MetricsLog
from cnn.runtime.terminal import Terminal
from cnn.runtime.tracking import Tracking
from cnn.sweep.live import LiveTable
from cnn.training.epoch import Pace


def read(directory):
    text = (directory / "metrics.jsonl").read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_lines_begin_with_their_step(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(0, {"loss": 2.5})
    log.write(3, {"loss": 0.1, "epoch": 1})
    length = log.sync()
    log.close()
    text = (tmp_path / "metrics.jsonl").read_bytes()
    assert text == b'{"step": 0, "loss": 2.5}\n{"step": 3, "loss": 0.1, "epoch": 1}\n'
    assert length == len(text)


def test_lines_are_there_before_the_log_is_closed(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(1, {})
    assert read(tmp_path) == [{"step": 1}]
    log.close()


def test_numbers_come_back_exactly(tmp_path):
    value = 0.1 + 0.2
    log = MetricsLog(tmp_path, 0, 0)
    log.write(1, {"loss": value})
    log.close()
    assert read(tmp_path)[0]["loss"] == value


def test_resuming_cuts_back_to_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(1, {"loss": 1.0})
    length = log.sync()
    log.write(2, {"loss": 9.0})
    log.close()
    log = MetricsLog(tmp_path, length, 1)
    assert read(tmp_path) == [{"step": 1, "loss": 1.0}]
    log.write(2, {"loss": 0.5})
    assert log.sync() > length
    log.close()
    assert [line["loss"] for line in read(tmp_path)] == [1.0, 0.5]


WHOLE = b"".join(b'{"step": %d, "epoch": %d}\n' % (2 * n, n) for n in range(4))
LINE = len(WHOLE) // 4


@pytest.mark.parametrize(
    "content, kept, told",
    [
        (WHOLE + b'{"step": 9}\n', [0, 1, 2, 3], None),
        (b"", [], "the epochs 0, 1, 2, 3;"),
        (WHOLE[LINE:], [1, 2, 3], "the epochs 0;"),
        (WHOLE[: 2 * LINE + 5], [0, 1], "the epochs 2, 3;"),
        (WHOLE[: 2 * LINE] + b"\0" * 2 * LINE, [0, 1], "the epochs 2, 3;"),
        (WHOLE[LINE:] + b'{"step": 8, "epoch": 4}\n', [1, 2, 3], "the epochs 0;"),
    ],
)
def test_what_a_log_has_lost_is_said_and_the_rest_kept(tmp_path, content, kept, told):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    log = MetricsLog(tmp_path, len(WHOLE), 6)
    found = log.describe_loss(3)
    assert (told in found) if told else found == ""
    log.write(8, {"epoch": 4})
    length = log.sync()
    log.close()
    assert [line["epoch"] for line in read(tmp_path)] == [*kept, 4]
    assert MetricsLog(tmp_path, length, 8).describe_loss(0) == ""


def test_tensorboard_takes_the_numbers(tmp_path):
    log = MetricsLog(tmp_path, 0, 0, "tensorboard")
    log.write(4, {"loss": 0.5, "hash": "ab", "epoch": 2})
    expected = {"loss": [(4, 0.5)], "epoch": [(4, 2)]}
    assert read_scalars(tmp_path / "tensorboard") == expected, "at once"
    log.close()


def test_tensorboard_forgets_what_a_resumed_run_writes_again(tmp_path):
    log = MetricsLog(tmp_path, 0, 0, "tensorboard")
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": 0.4})
    length = log.sync()
    log.write(2, {"epoch": 1})  # at the checkpoint's step, behind it
    log.write(3, {"loss": 7.0})
    log.close()
    with (tmp_path / "tensorboard/events.out.tfevents.4102444800.me").open("xb"):
        pass  # the clock was ahead
    for loss in (0.3, 0.2):
        log = MetricsLog(tmp_path, length, 2, "tensorboard")
        log.write(2, {"epoch": 1})
        log.write(3, {"loss": loss})
        log.close()
    losses = [(1, 0.5), (2, 0.4), (3, 0.2)]
    found = read_scalars(tmp_path / "tensorboard")
    assert found.pop("loss") == [(n, pytest.approx(x)) for n, x in losses]
    assert found == {"epoch": [(2, 1)]}


@pytest.mark.parametrize("position", [5, 17, 40])
def test_tensorboard_reads_on_behind_a_file_that_is_cut_off(tmp_path, position):
    for step in (1, 2):
        log = MetricsLog(tmp_path, 0, 0, "tensorboard")
        log.write(step, {"loss": 0.5})
        log.close()
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    first.write_bytes(first.read_bytes()[:position])
    assert read_scalars(tmp_path / "tensorboard") == {"loss": [(2, 0.5)]}


def test_tensorboard_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(
        UserError, match="tensorboard cannot be written .*leave --track=tens"
    ):
        MetricsLog(tmp_path, 0, 0, "tensorboard")


def test_tensorboard_takes_options_with_the_result(tmp_path):
    options = {"model": "mlp", "widths": [1, 2], "batch_norm": True, "epochs": 3}
    options |= {"dataset": "folder:caf\udce9\x1b"}  # a name that is no UTF-8
    result = {"test_accuracy": 0.5, "steps": 7, "device": "cpu", "stopped": True}
    log = MetricsLog(tmp_path, 0, 0, "tensorboard", options)
    for _ in range(2):  # once more when it is killed before result.json is there
        log.write_result(result | {"best": None})
    log.close()
    directory = tmp_path / "tensorboard" / "result"
    expected = {"test_accuracy": [(0, 0.5)], "steps": [(0, 7.0)]}
    assert read_scalars(directory) == expected
    values = [x for e in read_events(directory) for x in e.summary.value]
    contents = {x.tag: x.metadata.plugin_data.content for x in values}
    content = contents["_hparams_/session_start_info"]
    assert b"[1, 2]" in content and rb"folder:caf\xe9\x1b" in content
    # One of these would be the columns of all runs that TensorBoard shows.
    assert "_hparams_/experiment" not in contents
    count = len(list(directory.iterdir()))
    MetricsLog(tmp_path, 0, 0).write_result(result)
    assert len(list(directory.iterdir())) == count, "without the flag nothing is"


def test_tensorboard_draws_training_and_validation_in_one_chart(tmp_path):
    log = MetricsLog(tmp_path, 0, 0, "tensorboard")
    log.write(4, {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.25})
    log.close()
    for split, value in {"train": 0.5, "validation": 0.25}.items():
        found = read_tags(tmp_path / "tensorboard" / split)
        assert found == {"loss": [(4, value)]}
    assert read_tags(tmp_path / "tensorboard") == {"epoch": [(4, 1)]}


def test_bars_have_no_thread_that_could_die(tmp_path):
    before, shown = threading.enumerate(), Terminal()
    with open(tmp_path / "screen", "w") as file:
        shown.console = Console(file=file, force_terminal=True, width=120)
        shown.start_bar(10, 0)
        with LiveTable(shown, 3):
            assert threading.enumerate() == before
        shown.stop_bar()
        with shown.count(3, "files"):
            assert threading.enumerate() == before
        with shown.name_each("drawing", 3):
            assert threading.enumerate() == before


def test_tensorboard_takes_images(tmp_path):
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    tracked = Tracking("tensorboard", tmp_path, {})
    tracked.add_images({"kernels/First": image})
    tracked.close()
    values = [x for e in read_events(tmp_path / "tensorboard") for x in e.summary.value]
    (value,) = values
    assert value.tag == "kernels/First"
    drawn = Image.open(io.BytesIO(value.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(drawn), image)


def test_absent_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="pip install -U tensorboardX"):
        MetricsLog(tmp_path, 0, 0, "tensorboard")


def test_terminal_prints_text_as_it_is(capsys):
    terminal = Terminal()
    text = "[bold]x[/bold] " + "long " * 60
    terminal.say(text)
    assert capsys.readouterr().out == text + "\n"


def test_no_bar_where_there_is_no_terminal(capsys):
    terminal = Terminal()
    terminal.start_bar(10, 0)
    terminal.update_bar(5, 1, 0.5, 0.9, 100)
    terminal.stop_bar()
    assert capsys.readouterr().out == ""


def test_counts_are_said_each_half_minute_with_the_time_that_is_left(
    capsys, monkeypatch
):
    clock = iter([0, 10, 40, 50])
    fake = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(terminal, "time", fake)
    with Terminal().count(100_000, "files") as note:
        for done in (10, 20, 25):
            note(done)
    printed = capsys.readouterr().out
    assert printed == "20 of 100,000 files, 0.5 files/s, 2 days, 7:32:40 left\n"


def test_bar_of_a_terminal(tmp_path):
    terminal = Terminal()
    with open(tmp_path / "screen", "w+") as file:
        terminal.console = Console(file=file, force_terminal=True, width=120)
        terminal.start_bar(10, 0)
        terminal.update_bar(5, 3, 0.5, 0.912, 1234.4)
        terminal.say("one line")
        terminal.stop_bar()
        terminal.stop_bar()
        file.seek(0)
        screen = file.read()
    for words in ("epoch 3", "50%", "loss 0.5000", "91.20%", "1,234 images/s"):
        assert words in screen
    assert "one line" in screen


@pytest.mark.parametrize("is_terminal", [False, True])
def test_pieces_of_work_are_named_before_they_are_done(is_terminal):
    shown, screen = Terminal(), io.StringIO()
    shown.console = Console(
        file=screen, force_terminal=is_terminal, width=120, markup=False
    )
    with shown.name_each("drawing", 2) as begin:
        begin("curves [b]")
        assert "drawing curves [b] (1 of 2, 1 more after it)" in screen.getvalue()
        begin("kernels")
        assert "drawing kernels (2 of 2, the last)" in screen.getvalue()


def test_pace_takes_one_step_then_as_many_as_fit():
    pace = Pace()
    assert pace.choose_steps(100) == 1
    pace.note(0.25)
    assert pace.choose_steps(100) == 8
    assert pace.choose_steps(3) == 3
    pace.note(50.0)
    assert pace.choose_steps(100) == 1
    pace.note(0.0)
    assert pace.choose_steps(100) == 100


def test_a_full_disk_ends_the_event_file_alone(tmp_path, capsys):
    log = MetricsLog(tmp_path, 0, 0, "tensorboard")
    log.write(1, {"loss": 0.5})
    writer = log._tracking._tracker._writers[""]
    writer._file.close()
    writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    for step in (2, 3):
        log.write(step, {"loss": 0.25})
    log.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "No space left on device: make room" in lines[0]
    assert read_scalars(tmp_path / "tensorboard") == {"loss": [(1, 0.5)]}
    assert [line["step"] for line in read(tmp_path)] == [1, 2, 3]
