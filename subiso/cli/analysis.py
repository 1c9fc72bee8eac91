"""What the demo computes: counts and complexity of Python source files."""

import ast
from typing import Any, NamedTuple


class Module(NamedTuple):
    """What was found in one file.

    The complexity of a function is McCabe's: one, and one more for each branch. Branches are ``if``, ``elif``, the
    conditional expression, loops, each ``for`` and ``if`` of a comprehension, ``except`` clauses, ``match`` cases, and
    every operand but the first of ``and`` and ``or``. A lambda belongs to the function around it.

    Attributes:
        path: the file's.
        lines: how many lines it has; 0 if it could not be read.
        functions: how many functions are defined in it, at any depth, that are not methods.
        methods: how many functions are defined directly in a class.
        branches: how many there are, inside and outside of functions.
        max_complexity: that of the most complex function; 0 without functions.
        mean_complexity: of all functions and methods.
        most_complex: the name of the most complex function; of several, the one that comes first.
        error: why the file could not be read or parsed.
    """

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    methods: int = 0
    branches: int = 0
    max_complexity: int = 0
    mean_complexity: float = 0.0
    most_complex: str = ""
    error: str | None = None


def analyse_all(paths: list[str]) -> list[Module]:
    """Analyse some files, in order."""
    return [analyse(path) for path in paths]


def analyse(path: str) -> Module:
    """Analyse one file. One that cannot be read or parsed gives a result that says so."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        return Module(path, error=f"{type(error).__name__}: {error.strerror}")
    lines = len(source.splitlines())
    try:
        tree = ast.parse(source)  # bytes: the parser decodes them as the file declares (PEP 263)
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        return Module(path, lines, error=f"{type(error).__name__}: {error.msg}{where}")
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply
        return Module(path, lines, error=f"{type(error).__name__}: {error}")
    return _count(path, lines, tree)


_FUNCTIONS = frozenset({ast.FunctionDef, ast.AsyncFunctionDef})
_BRANCHES = frozenset(
    {ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.comprehension}
)
_LEAVES = (
    *(ast.Name, ast.Constant, ast.alias, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Pass),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: kind._fields
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST) and not issubclass(kind, _LEAVES)
}


def _count(path: str, lines: int, tree: ast.Module) -> Module:
    functions = classes = methods = branches = 0
    complexities: list[tuple[int, int, str]] = []
    scopes: list[Any] = [tree]
    for scope in scopes:  # which grows meanwhile: recursion would end at deeply nested code
        inside, nested = _look_into(scope)
        branches += inside
        scopes += nested
        in_class = type(scope) is ast.ClassDef
        defined = sum(type(node) in _FUNCTIONS for node in nested)
        classes += len(nested) - defined
        methods += defined if in_class else 0
        functions += 0 if in_class else defined
        if type(scope) in _FUNCTIONS:
            complexities.append((1 + inside, -scope.lineno, scope.name))
    if not complexities:
        return Module(path, lines, functions, classes, methods, branches)
    highest, _, name = max(complexities)
    mean = sum(complexity for complexity, _, _ in complexities) / len(complexities)
    return Module(path, lines, functions, classes, methods, branches, highest, mean, name)


def _look_into(scope: ast.AST) -> tuple[int, list[ast.AST]]:
    """Return how many branches a scope has itself, and the functions and classes defined directly in it."""
    branches = 0
    nested: list[ast.AST] = []
    stack: list[Any] = [getattr(scope, field) for field in scope._fields]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is list:
            stack += node
        elif kind in _FUNCTIONS or kind is ast.ClassDef:
            nested.append(node)
        else:
            if kind in _BRANCHES:
                branches += 1
                if kind is ast.comprehension:
                    branches += len(node.ifs)
            elif kind is ast.BoolOp:
                branches += len(node.values) - 1
            for field in _FIELDS.get(kind, ()):  # not only nodes lie in fields
                stack.append(getattr(node, field))
    return branches, nested
