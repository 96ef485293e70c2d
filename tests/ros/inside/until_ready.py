"""Starts a penguin_node script, waits until it is active, ends it: `python until_ready.py SCRIPT`. Prints what it said."""

from __future__ import annotations

import signal
import subprocess
import sys

node = subprocess.Popen([sys.executable, sys.argv[1], '--ros-args', '-p', 'autostart:=true'], text=True, stderr=subprocess.PIPE)
assert node.stderr is not None
for line in node.stderr:
    print(line, end='', flush=True)
    if 'listens to' in line or 'refused' in line:
        node.send_signal(signal.SIGINT)
sys.exit(node.wait())
