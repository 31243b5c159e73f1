"""Which version this is, where it lies, and what a user types to start it there.

In a checkout main.py and configs/ stand beside cnn/. A wheel has them inside it
(pyproject.toml): at the top of an environment `main` and `configs` would be in the way
of other people's.
"""

from pathlib import Path

VERSION = "0.1.0"
_PACKAGE = Path(__file__).parent
IS_INSTALLED = (_PACKAGE / "main.py").is_file()
TOP = _PACKAGE if IS_INSTALLED else _PACKAGE.parent
MAIN, PRESETS = TOP / "main.py", TOP / "configs"
COMMAND = "cnn" if IS_INSTALLED else "python main.py"
