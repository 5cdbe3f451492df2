"""Run the command `inference-suites` as `python -m suites`."""

import sys

from suites.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
