"""Golden cases of the chat template. Fields: tests/data/golden."""

from __future__ import annotations

from pathlib import Path

from penguin_ros.core.prompt import chat_text
from penguin_ros.verify.findings import Findings, Record

_FIELDS = {'id', 'name', 'messages', 'add_generation_prompt', 'add_think_prompt', 'text'}


def check_prompt(record: Record, root: Path, findings: Findings) -> None:
    """The text of one conversation."""
    findings.known_fields(record, _FIELDS)
    findings.equal('text', record['text'], chat_text(
        record['messages'], generation_prompt=record['add_generation_prompt'], thinking=record['add_think_prompt']))
