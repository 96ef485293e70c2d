"""One thing the doctor looked at, or could not. Knows nothing of what there is to look at."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAULT, UNSEEN = 'ok', 'warning', 'fault', 'not looked at'


@dataclass(frozen=True)
class Finding:
    """``remedy`` is a command or a setting to change; what is well or could not be seen needs none."""

    about: str
    level: str
    text: str
    remedy: str = ''


def ok(about: str, text: str) -> Finding:
    return Finding(about, OK, text)


def warning(about: str, text: str, remedy: str) -> Finding:
    return Finding(about, WARNING, text, remedy)


def fault(about: str, text: str, remedy: str) -> Finding:
    return Finding(about, FAULT, text, remedy)


def unseen(about: str, why: str) -> Finding:
    return Finding(about, UNSEEN, why)
