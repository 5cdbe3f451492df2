"""Generators for parts of the documentation. `python -m docs.generate` writes all of them."""
