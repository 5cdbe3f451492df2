"""Write every generated part of the documentation: `python -m docs.generate`."""

from __future__ import annotations

from docs.generate.pages import write_all

if __name__ == "__main__":
    for path in write_all():
        print(path)
