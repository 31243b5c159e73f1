"""Pages and their parts, from the templates beside this code."""

from pathlib import Path
from typing import Any

from cnn.errors import UserError
from cnn.text import show

_FOLDER = Path(__file__).parent


def fill(name: str, written: str, **values: Any) -> str:
    """Fill a template; every text is escaped.

    Args:
        name: of a file of this folder.
        written: the file that the template is for.
        values: what the template names.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise UserError(f"{written} needs: pip install jinja2") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=lambda x: show(x) if type(x) is str else x,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
