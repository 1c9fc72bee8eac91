"""What `import pytest` finds in the isolates of tests: marks and fixtures that do nothing, the rest when it is wanted.

Each new interpreter imports the file of the test whose function it calls, and with it pytest, which takes a quarter of
a second of the processor: more than all the rest of its life.
"""

import sys
from _frozen_importlib import ModuleSpec


class _Mark:
    """A mark, or `fixture`: a decorator, with or without arguments, that leaves everything as it is."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **options):
        return args[0] if len(args) == 1 and not options and callable(args[0]) else self


class _Pytest(type(sys)):
    mark = fixture = _Mark()

    @staticmethod
    def param(*values, **options):
        return values

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
            del sys.modules["pytest"]
        import pytest

        return getattr(pytest, name)


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, _Finder) if name == "pytest" else None

    @staticmethod
    def create_module(spec):
        return _Pytest(spec.name)

    @staticmethod
    def exec_module(module):
        pass


_finder = _Finder()
sys.meta_path.insert(0, _finder)
