from pkgutil import extend_path

# A folder `backends/NAME_/` of any folder on PYTHONPATH belongs to this package too; see backends/registry.py.
__path__ = extend_path(__path__, __name__)
