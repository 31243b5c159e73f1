"""Logits and frames of `--pictures=playground` in headless Chromium, beside the run's.

    python benchmarks/playground.py --workdir=runs/digits [--images=100] [--seconds=5]

The report of the run is drawn into a temporary directory and opened. The page computes
the logits of images of the test set, evenly spread, whose largest difference from those
of the run itself, with its float32 weights, is printed; then, for the seconds, the pen
moves in every frame, everything that the page shows follows, and the frames that showed
a change are counted, with the CPU time of the page's thread for each. A display of 60
Hz is what headless Chromium plays.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import flags
import numpy as np

sys.path.insert(0, str(flags.ROOT / "tests/visualize"))

COMPUTE = """
const { network } = document.querySelector(".playground").playground;
return arguments[0].map((image) => Array.from(network.run(Float32Array.from(image))));
"""
DRAW = """
const { playground } = document.querySelector(".playground"), { pad } = playground;
const box = pad.getBoundingClientRect(), limit = 1000 * arguments[0];
const send = (type, i) => pad.dispatchEvent(new PointerEvent(type, {
  pointerId: 1, buttons: 1,
  clientX: box.left + box.width * (0.5 + 0.4 * Math.cos(i / 9)),
  clientY: box.top + box.height * (0.5 + 0.4 * Math.sin(i / 7)),
}));
pad.setPointerCapture = () => {};
return new Promise((resolve) => {
  const start = performance.now(), before = playground.updates;
  const count = (passed) => (playground.updates - before) / passed * 1000;
  let i = 0;
  send("pointerdown", i);
  function frame() {
    send("pointermove", ++i);
    const passed = performance.now() - start;
    if (passed < limit) requestAnimationFrame(frame);
    else resolve([count(passed), playground.updates - before, playground.data.about]);
  }
  requestAnimationFrame(frame);
});
"""


def draw(workdir: str, output: str) -> None:
    """Draw the playground of a run."""
    import main as program

    arguments = ["main.py", "--mode=visualize", "--pictures=playground"]
    arguments += [f"--workdir={workdir}", f"--output={output}"]
    with contextlib.redirect_stdout(sys.stderr):
        code = program.main(program.parse_flags(arguments)[:1])
    if code:
        sys.exit(code)


def compute_logits(workdir: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the test set, uint8 [N, H, W, C], and the run's logits."""
    from cnn.data import load_dataset
    from cnn.data.options import DataOptions
    from cnn.option import read_group
    from cnn.visualize.named_run import load_run
    from cnn.visualize.subject import spread

    run = load_run(workdir)
    options = read_group(DataOptions, run.trained.options).for_evaluation()
    test = load_dataset(options).test
    images = test.read(spread(len(test), count))
    return images, run.predict(images)


def read_seconds(opened: Any) -> float:
    """Return the CPU time of the page's thread so far."""
    opened.command("Performance.enable", timeDomain="threadTicks")
    metrics = opened.command("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def measure(workdir: str, count: int, seconds: float) -> dict[str, Any]:
    """Compare the logits of a page with the run's, and count its frames."""
    import browser

    with tempfile.TemporaryDirectory() as folder:
        draw(workdir, folder)
        images, logits = compute_logits(workdir, count)
        with browser.start_browser(folder) as opened:
            opened.open(Path(folder) / "report.html")
            flat = images.reshape(len(images), -1).tolist()
            found = np.array(opened.run(COMPUTE, flat))
            before = read_seconds(opened)
            frames, changes, said = opened.run(DRAW, seconds)
            spent = read_seconds(opened) - before
    return {
        "images": len(images),
        "largest_difference": float(np.abs(found - logits).max()),
        "largest_logit": float(np.abs(logits).max()),
        "same_class": int((found.argmax(1) == logits.argmax(1)).sum()),
        "frames_per_second": frames,
        "cpu_ms_per_frame": 1000 * spent / changes,
        "page": said,
    }


def main() -> None:
    """Measure the run and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--images", type=flags.positive, default=100)
    parser.add_argument("--seconds", type=flags.positive, default=5)
    parser.add_argument("--json", type=flags.new_file)
    options = parser.parse_args()
    found = measure(options.workdir, options.images, options.seconds)
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value:.6g}" if name != "page" else value)
    flags.write_json(options.json, found)


if __name__ == "__main__":
    flags.run(main)
