"""Which DDS domain and names a test process uses, so that tests that run beside each other never hear each other."""

from __future__ import annotations

import itertools
import os

# Ports of domains above 100 would collide with those the kernel hands out.
DOMAIN_ID = 1 + os.getpid() % 100
_numbers = itertools.count()


def own_name(what: str) -> str:
    """A node name nobody else has, should two test processes share a domain."""
    return f'{what}_{os.getpid()}_{next(_numbers)}'
