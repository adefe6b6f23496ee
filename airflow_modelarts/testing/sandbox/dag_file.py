"""What can be said of a DAG file before an Airflow is started for it: that it is none, for certain."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LISTED_FILES = 10
"""Files of a folder that an error names."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
# With these a file can reach anything by a name that is not in its source.
_INDIRECT = frozenset(
    {"__import__", "eval", "exec", "getattr", "globals", "importlib", "locals", "pkgutil", "runpy", "sys", "vars"}
)


class DagFileError(Exception):
    """A file that no Airflow could read a DAG from; the message says where and what to do."""


def check_dag_file(path: Path) -> None:
    """Refuse a path that is no Python file, does not compile, or certainly defines no DAG.

    A file that may get its DAG from elsewhere, such as a module of its own, is not refused: Airflow will tell.

    :raises DagFileError: with the line, where one is to blame
    """
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.py"))
        more = ", …" if len(files) > LISTED_FILES else ""
        inside = f": it holds {', '.join(files[:LISTED_FILES])}{more}" if files else ", with no Python file in it"
        raise DagFileError(f"{path} is a folder{inside}. Name one DAG file")
    if not path.exists():
        raise DagFileError(f"there is no file {path}")
    if path.suffix != ".py":
        raise DagFileError(f"{path} is not a Python file; Airflow reads DAGs from files that end in .py")
    if not path.is_file():
        raise DagFileError(f"{path} is a device, a pipe or a socket. Name one DAG file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DagFileError(f"{path} cannot be read: {error.strerror or error}") from None
    tree = _parse(path, source)
    if tree is not None and (reason := why_no_dag(tree)):
        raise DagFileError(f"{path}{reason}")


def _parse(path: Path, source: bytes) -> ast.Module | None:
    """Return the syntax tree, None if Python is to say why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Airflow's log will have them
            tree = ast.parse(source, str(path))
            compile(tree, str(path), "exec", dont_inherit=True)  # finds what the parser lets pass: return, await, …
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        code = ""
        if error.text and error.lineno:
            code = f"\n  {error.text.strip()}"
            if error.offset:
                indentation = len(error.text) - len(error.text.lstrip())
                code += f"\n  {' ' * max(0, error.offset - 1 - indentation)}^"
        raise DagFileError(f"{path}{where}: {error.msg}{code}") from None
    except ValueError as error:  # a null byte, in older versions of Python
        raise DagFileError(f"{path} is not Python source: {error}") from None
    except (RecursionError, MemoryError):
        return None
    return tree


def why_no_dag(tree: ast.Module) -> str | None:
    """Return why a module certainly defines no DAG when Airflow imports it, None if it may define one."""
    names = _Names.of(tree)
    if names.is_open:
        return None
    live = _Live(names)
    live.visit_all(tree.body)
    if live.may_make_dag:
        return None
    for function in live.dead_functions():
        if _is_dag_function(function, names):
            made = f"@dag makes a DAG of {function.name}() only where it is called"
            if live.called_in_main & {function.name}:
                made += ', and Airflow runs nothing below `if __name__ == "__main__"`'
            return f", line {function.lineno}: {made}. Add a line `{function.name}()` at the end of the file"
        inside = _Live(names)
        inside.visit_all(function.body)
        if inside.makes_dag:
            return (
                f", line {function.lineno}: {function.name}() would make a DAG, but nothing calls it when Airflow "
                f"imports the file. Call it at the end of the file"
            )
    return (
        " defines no DAG: nothing in it uses airflow.sdk.DAG, calls a function that @dag decorates, or imports a "
        "module that could define one"
    )


@dataclass
class _Names:
    """What a module's imports and definitions say of its names.

    :param makers: names from Airflow that may make a DAG, as the module calls them
    :param classes: those of them that are the class `DAG`
    :param decorators: those of them that are the decorator `dag`
    :param functions: all functions by name
    :param is_open: whether the module imports something that may define a DAG or make one
    """

    makers: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    decorators: set[str] = field(default_factory=set)
    functions: dict[str, list[_Function]] = field(default_factory=dict)
    is_open: bool = False

    @classmethod
    def of(cls, tree: ast.Module) -> _Names:
        names = cls()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names._add_module(alias.name, level=0)
            elif isinstance(node, ast.ImportFrom):
                names._add_module(node.module or "", node.level)
                for alias in node.names:
                    names._add_import(node.module or "", alias)
            elif isinstance(node, _FUNCTIONS):
                names.functions.setdefault(node.name, []).append(node)
        return names

    def _add_module(self, module: str, level: int) -> None:
        root = module.partition(".")[0]
        ours = root in ("airflow", "airflow_modelarts") and "example" not in module
        self.is_open |= bool(level) or not (ours or root in sys.stdlib_module_names)

    def _add_import(self, module: str, alias: ast.alias) -> None:
        if module.partition(".")[0] != "airflow":
            return
        self.is_open |= alias.name == "*" or "example" in alias.name
        if "dag" in alias.name.lower():
            self.makers.add(alias.asname or alias.name)
        if alias.name == "DAG":
            self.classes.add(alias.asname or alias.name)
        if alias.name == "dag":
            self.decorators.add(alias.asname or alias.name)


class _Live(ast.NodeVisitor):
    """Visits what runs when the module is imported, and what may run because its name is used there."""

    def __init__(self, names: _Names) -> None:
        self._names = names
        self._visited: set[int] = set()
        self.may_make_dag = False
        self.makes_dag = False
        """Whether the class DAG itself is used, which is no guess."""
        self.called_in_main: set[str] = set()

    def visit_all(self, nodes: Iterable[ast.AST]) -> None:
        """Visit several nodes."""
        for node in nodes:
            self.visit(node)

    def dead_functions(self) -> Iterator[_Function]:
        """Return the functions whose bodies do not run, in the order of their lines."""
        functions = [function for same_name in self._names.functions.values() for function in same_name]
        for function in sorted(functions, key=lambda function: function.lineno):
            if id(function) not in self._visited:
                yield function

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            if isinstance(statement, _FUNCTIONS):
                # Whoever has an object may call it.
                self.may_make_dag |= _is_dag_function(statement, self._names)
                self._visit_body(statement)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if _is_main_guard(node.test):
            called = (name for child in node.body for name in ast.walk(child) if isinstance(name, ast.Name))
            self.called_in_main |= {name.id for name in called}
            self.visit_all(node.orelse)
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._use(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if "dag" in node.attr.lower():
            self.may_make_dag = True
            self.makes_dag |= node.attr == "DAG"
        self.generic_visit(node)

    def _visit_definition(self, node: _Function) -> None:
        for decorator in node.decorator_list:
            if not _is_dag_decorator(decorator, self._names):
                self.visit(decorator)
                # The decorator may call it.
                self.may_make_dag |= _is_dag_function(node, self._names)
                self._visit_body(node)
            elif isinstance(decorator, ast.Call):
                self.visit_all([*decorator.args, *(keyword.value for keyword in decorator.keywords)])
        self.visit(node.args)

    def _use(self, name: str) -> None:
        if name in self._names.makers or name in _INDIRECT:
            self.may_make_dag = True
            self.makes_dag |= name in self._names.classes
        for function in self._names.functions.get(name, ()):
            if _is_dag_function(function, self._names):
                self.may_make_dag = self.makes_dag = True
            self._visit_body(function)

    def _visit_body(self, function: _Function) -> None:
        if id(function) not in self._visited:
            self._visited.add(id(function))
            self.visit_all(function.body)


def _is_dag_function(function: _Function, names: _Names) -> bool:
    return any(_is_dag_decorator(decorator, names) for decorator in function.decorator_list)


def _is_dag_decorator(decorator: ast.expr, names: _Names) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Attribute):
        return called.attr == "dag"
    return isinstance(called, ast.Name) and called.id in names.decorators


def _is_main_guard(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")
