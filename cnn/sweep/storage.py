"""Where a study lies: in a database, or in a journal file.

All calls of Optuna to its storage go through `PatientStorage`: one that fails because
the storage does not answer is made again until it does or the time is over. Each is a
transaction of its own, which may have been committed before the connection broke, so
that it may happen twice: attributes, parameters and states are then as after the first
time, and a trial that was created twice is one that nobody runs, which a worker takes
over (see `study`).
"""

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.errors import UserError
from cnn.runtime import own_files
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep.journal import Journal

CONNECT_SECONDS = 10
# Of a connection without a word from the server, as the system's own would be hours.
_DEAD_SECONDS = 30
_SLOW_SECONDS, _PAUSE = 5.0, 0.5
_LAST_SECONDS = 5.0
_LIBPQ = "postgresql", "postgresql+psycopg", "postgresql+psycopg2"


class PatientStorage:
    """A storage of Optuna's that is waited for.

    Only the main thread waits: what others leave, signs of life, comes again anyway.

    Attributes:
        outages: how often it did not answer.
        is_ending: whether the worker is leaving, and waits no more than some seconds.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        seconds: float,
        terminal: Terminal,
        stop: Stop,
    ) -> None:
        """Wrap a storage.

        Args:
            name: for messages.
            seconds: the longest wait.
            stop: looked at while waiting.
        """
        self._storage, self._name, self._seconds = storage, name, seconds
        self._terminal, self._stop = terminal, stop
        self._is_waiting = False
        self.outages, self.is_ending = 0, False

    @property
    def __class__(self) -> type:
        """Pass for the storage: Optuna puts a cache before a database."""
        return type(self._storage)

    def __getattr__(self, name: str) -> Any:
        """Return what the storage has, its methods such that they wait."""
        found = getattr(self._storage, name)
        return functools.partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call a method.

        Raises:
            UserError: the storage cannot be used, or did not answer in time.
            Interrupted: a signal arrived while it did not answer.
        """
        if threading.current_thread() is not threading.main_thread():
            return method(*args, **kwargs)
        seconds = _LAST_SECONDS if self.is_ending else self._seconds
        until = time.monotonic() + seconds
        while True:
            attempt = _Attempt(functools.partial(method, *args, **kwargs))
            patience = min(seconds, _SLOW_SECONDS)
            while not attempt.ended.wait(patience):
                self._wait("it is silent", until)
                patience = _PAUSE
            if attempt.error is None:
                self._note_answer()
                return attempt.result
            if not _is_lost(attempt.error):
                raise self._explain(attempt.error)
            self._wait(_first_line(attempt.error), until)
            time.sleep(_PAUSE)

    def _wait(self, why: str, until: float) -> None:
        """Say once that it is waited for; leave when the time is over."""
        if not self._is_waiting:
            self._is_waiting, self.outages = True, self.outages + 1
            if not self.is_ending:
                self._terminal.say(
                    f"warning   {self._name} does not answer ({why}); waiting for it, "
                    f"at most {self._seconds:g} s"
                )
        if not self.is_ending:
            self._stop.check()
        if time.monotonic() > until:
            raise UserError(
                f"{self._name} has not answered for {self._seconds:g} s ({why}); what "
                "has ended is kept: when it answers again, run the same command"
            )

    def _note_answer(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._terminal.say(f"{self._name} answers again")

    def _explain(self, error: Exception) -> Exception:
        """Return the error to raise: of what a user can mend, a message."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, StorageInternalError | SQLAlchemyError):
            return error
        cause = error.__cause__ or error
        return UserError(
            f"{self._name} cannot be used ({type(cause).__name__}: "
            f"{_first_line(cause)}); its tables are those that Optuna makes"
        )


class _Attempt:
    """A call in a thread of its own, so that a silent server does not hold signals."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.ended, self.result = threading.Event(), None
        self.error: Exception | None = None
        self._call = call
        threading.Thread(target=self._run, name="storage", daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()


def _is_lost(error: BaseException | None) -> bool:
    """Return whether an error is that of a storage that cannot be reached now."""
    from sqlalchemy import exc

    lost = exc.OperationalError, exc.InterfaceError, exc.TimeoutError, BlockingIOError
    while error is not None:
        if isinstance(error, lost) or getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0]


def open_storage(text: str, home: Path) -> Any:
    """Open a storage by its URL; a path, or nothing, means a journal file.

    Raises:
        UserError: the journal cannot be written, or is damaged.
    """
    import optuna

    if "://" not in text:
        path = Path(text).expanduser() if text else home / "study.log"
        if not text:
            own_files.check_no_link(path)
        journal = Journal(path)
        try:
            return optuna.storages.JournalStorage(journal)
        except UserError:
            raise
        except Exception as error:  # what a line says cannot be done
            raise journal.refuse(journal.line, f"{error!r}") from None
    arguments: dict[str, Any] = {}
    if text.startswith(("postgresql", "mysql")):
        arguments["connect_timeout"] = CONNECT_SECONDS
    if text.partition(":")[0] in _LIBPQ:
        arguments |= {"keepalives_idle": 10, "keepalives_interval": 5}
        arguments |= {"keepalives_count": 3, "tcp_user_timeout": _DEAD_SECONDS * 1000}
    options = {"connect_args": arguments, "pool_pre_ping": True}
    return optuna.storages.RDBStorage(text, engine_kwargs=options)
