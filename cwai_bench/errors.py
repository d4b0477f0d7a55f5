"""The tree of errors. Three classes, because three different people have to act.

::

    CwaiError                  every error that we raise on purpose
    ├── UsageError             the command, or a file given to it, is wrong: the person mends it      exit 2
    ├── DeviceError            a device, library or peer refused: carries errno and the vendor's code exit 3
    │   └── DeadlineError      it did not answer in time
    └── NoVerdictError         nothing could be judged (a node was lost, a store could not be written) exit 3

    Interrupted                a signal told this process to stop; no Exception, so that no handler swallows it

Anything else that reaches the command line is a bug of ours and is reported as one.
Each error has a message that names the thing, and the next step to take; both in both languages.
"""

from __future__ import annotations

from typing import ClassVar

from cwai_bench.text import Lang, Text


class CwaiError(Exception):
    """Base. ``message`` says what is wrong with what; ``next_step`` what to do about it."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: Text, next_step: Text | None = None) -> None:
        super().__init__(message.en)
        self.message = message
        self.next_step = next_step

    def show(self, lang: Lang) -> str:
        """The message and, on a line of its own, the next step."""
        text = self.message.to(lang)
        return text if self.next_step is None else f"{text}\n  → {self.next_step.to(lang)}"


class Interrupted(BaseException):
    """The process was told to stop by signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class UsageError(CwaiError):
    """The command, or a file given to it, is wrong."""

    exit_code = 2


class DeviceError(CwaiError):
    """A device, library or peer refused. ``errno`` and ``vendor_code`` are kept as they came (0: none)."""

    def __init__(self, message: Text, next_step: Text | None = None, *, errno: int = 0, vendor_code: str = "") -> None:
        super().__init__(message, next_step)
        self.errno = errno
        self.vendor_code = vendor_code


class DeadlineError(DeviceError):
    """It did not answer before its deadline."""


class NoVerdictError(CwaiError):
    """Nothing could be judged."""
