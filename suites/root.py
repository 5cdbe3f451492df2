"""Where the code is: the folder that holds suites/ and backends/, in a checkout or among installed packages."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CONF = ROOT / "suites" / "conf"
"""Hydra's groups, experiments and batches."""
