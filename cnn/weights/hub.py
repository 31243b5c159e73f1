"""Weights of the Hugging Face Hub: `hf:OWNER/NAME[/FILE][@REVISION]`.

They are downloaded by `huggingface_hub` into its own cache, whose place and offline
mode are those of its environment variables (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`).
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from cnn.errors import UserError
from cnn.weights.beside import WEIGHTS

_PREFIX = "hf:"
_PATTERN = re.compile(
    r"hf:(?P<repo>[^/@\s]+/[^/@\s]+)(/(?P<file>[^@\s]+))?(@(?P<revision>\S+))?"
)
_BESIDE = ("config.json", "preprocessor_config.json")


def is_name(source: str) -> bool:
    """Whether a source names weights of the Hub."""
    return source.startswith(_PREFIX)


def fetch(source: str, flag: str) -> tuple[Path, list[str]]:
    """Return where weights lie, and what is to be said of them.

    Those of the Hub are downloaded, with what describes them in files beside; any other
    source is a path as it is.

    Args:
        flag: that named the source, for messages.

    Raises:
        UserError: the name is none, there is no such repository, revision or file, or
            it is neither in the cache nor can it be reached.
    """
    if not is_name(source):
        return Path(source), []
    match = _PATTERN.fullmatch(source)
    if match is None:
        raise UserError(
            f"{flag}={source} is no name of the Hub; write hf:OWNER/NAME, with /FILE "
            "or @REVISION behind it where they are needed"
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{flag}={source} needs a package: pip install huggingface_hub")
    repository = _Repository(match["repo"], match["revision"], f"{flag}={source}")
    names = [match["file"]] if match["file"] else WEIGHTS
    found = next(filter(None, map(repository.find, names)), None)
    if found is None:
        raise repository.explain(names)
    beside = [name for name in _BESIDE if repository.find(name)]
    # The cache calls a folder of it by the commit: snapshots/COMMIT/FILE.
    commit = found.parts[found.parts.index("snapshots") + 1]
    said = [f"{found.name} of {match['repo']} at {commit}"]
    if not beside and repository.unreachable:
        said.append(
            f"no {_BESIDE[0]} in the cache, which would say how images are made"
        )
    return found, said


class _Repository:
    """A repository of the Hub, as far as it can be reached.

    Attributes:
        unreachable: why the Hub does not answer; empty while it does. From then on
            files are only looked for in the cache.
    """

    def __init__(self, name: str, revision: str | None, where: str) -> None:
        """Look at nothing yet; `where` is what messages begin with."""
        self.unreachable = ""
        self._name, self._revision, self._where = name, revision, where

    def find(self, file: str) -> Path | None:
        """Return the path of a file in the cache, downloaded first if need be.

        Returns:
            None: the repository has none, or it is not known whether it has one.

        Raises:
            UserError: there is no such repository or revision, or it is closed.
        """
        from huggingface_hub import errors, hf_hub_download

        try:
            path = hf_hub_download(
                self._name,
                file,
                revision=self._revision,
                local_files_only=bool(self.unreachable),
            )
            return Path(path)
        except errors.LocalEntryNotFoundError as error:
            self.unreachable = self.unreachable or str(error.__cause__ or error)
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.GatedRepoError:
            problem = "is gated: accept its terms on its page, and set HF_TOKEN"
        except errors.RepositoryNotFoundError:
            problem = "is not there, or private: mend the name, or set HF_TOKEN"
        except errors.RevisionNotFoundError:
            problem = f"has no revision {self._revision}"
        except errors.HFValidationError as error:
            problem = f"cannot be: {error}"
        except (errors.HfHubHTTPError, OSError) as error:
            problem = f"cannot be downloaded ({error})"
        raise UserError(f"{self._where}: the repository {problem}")

    def explain(self, files: Sequence[str]) -> UserError:
        """Say why none of the files was found."""
        names = " or ".join(files)
        if not self.unreachable:
            return UserError(
                f"{self._where}: the repository has no file {names}; name one of its "
                f"files, as {_PREFIX}{self._name}/FILE"
            )
        reason = self.unreachable.splitlines()[0]
        return UserError(
            f"{self._where}: {names} is not in the cache, and the Hub does not answer "
            f"({reason}). Where it can be, type `hf download {self._name}`, and "
            "bring the cache here (HF_HOME); or give the downloaded file itself"
        )
