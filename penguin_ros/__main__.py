"""`python -m penguin_ros` is the penguin command."""

import sys

from penguin_ros.cli.main import main

sys.exit(main())
