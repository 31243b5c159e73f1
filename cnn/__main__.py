"""The command `cnn`, and `python -m cnn`: main.py, from any directory."""

import runpy

from cnn import place


def run() -> None:
    """Run main.py as `python main.py` does; it leaves with its exit code."""
    runpy.run_path(str(place.MAIN), run_name="__main__")


if __name__ == "__main__":
    run()
