"""Parts of the documentation that are generated: `python -m docs.generate` writes all of them."""
