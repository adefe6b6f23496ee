"""A static check of a DAG file, before any Airflow starts: it rejects files that certainly define no DAG."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from airflow_modelarts.testing.command import UsageError

LISTED_FILES = 10
"""Files of a folder that an error names."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
# With these a file can use objects whose names are not in its source.
_INDIRECT = frozenset(
    {"__import__", "eval", "exec", "getattr", "globals", "importlib", "locals", "pkgutil", "runpy", "sys", "vars"}
)


def check_dag_file(path: Path) -> None:
    """Reject a path that is not a Python file, does not compile, or certainly defines no DAG.

    A file that may get its DAG from another module is accepted: Airflow finds out.

    :raises UsageError: with the line number if there is one
    """
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.py"))
        more = ", …" if len(files) > LISTED_FILES else ""
        inside = f": it holds {', '.join(files[:LISTED_FILES])}{more}" if files else ", with no Python file in it"
        raise UsageError(f"{path} is a folder{inside}. Name one DAG file")
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file; Airflow reads DAGs from files that end in .py")
    if not path.is_file():
        raise UsageError(f"{path} is a device, a pipe or a socket. Name one DAG file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    tree = _parse(path, source)
    if tree is not None and (reason := why_no_dag(tree)):
        raise UsageError(f"{path}{reason}")


def _parse(path: Path, source: bytes) -> ast.Module | None:
    """Return the syntax tree, None for a file that is too complex for the parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Airflow logs them when it imports the file
            tree = ast.parse(source, str(path))
            compile(tree, str(path), "exec", dont_inherit=True)  # finds errors that the parser accepts: return, await
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        code = ""
        if error.text and error.lineno:
            code = f"\n  {error.text.strip()}"
            if error.offset:
                indentation = len(error.text) - len(error.text.lstrip())
                code += f"\n  {' ' * max(0, error.offset - 1 - indentation)}^"
        raise UsageError(f"{path}{where}: {error.msg}{code}") from None
    except ValueError as error:  # a null byte, in older versions of Python
        raise UsageError(f"{path} is not Python source: {error}") from None
    except (RecursionError, MemoryError):
        return None
    return tree


def why_no_dag(tree: ast.Module) -> str | None:
    """Return why a module certainly defines no DAG when Airflow imports it, None if it may define one."""
    names = _ModuleNames.of(tree)
    if names.has_unknown_imports:
        return None
    reachable = _ReachableCode(names)
    reachable.visit_all(tree.body)
    if reachable.may_make_dag:
        return None
    for function in sorted(names.all_functions(), key=lambda function: function.lineno):
        if reachable.has_visited(function):
            continue
        if names.is_dag_function(function):
            reason = f"@dag makes a DAG of {function.name}() only when it is called"
            if function.name in reachable.names_under_main_guard:
                reason += ', and Airflow runs nothing below `if __name__ == "__main__"`'
            return f", line {function.lineno}: {reason}. Add a line `{function.name}()` at the end of the file"
        body = _ReachableCode(names)
        body.visit_all(function.body)
        if body.makes_dag:
            return (
                f", line {function.lineno}: {function.name}() would make a DAG, but nothing calls it when Airflow "
                f"imports the file. Call it at the end of the file"
            )
    return (
        " defines no DAG: nothing in it uses airflow.sdk.DAG, calls a function that @dag decorates, or imports a "
        "module that could define one"
    )


@dataclass
class _ModuleNames:
    """The imported and defined names of a module.

    :param from_airflow: names imported from Airflow that may make a DAG, with their names there
    :param functions: all functions by name
    :param has_unknown_imports: whether the module imports something that may define or make a DAG
    """

    from_airflow: dict[str, str] = field(default_factory=dict)
    functions: dict[str, list[_Function]] = field(default_factory=dict)
    has_unknown_imports: bool = False

    @classmethod
    def of(cls, tree: ast.Module) -> _ModuleNames:
        names = cls()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names._add_module(alias.name, level=0)
            elif isinstance(node, ast.ImportFrom):
                names._add_module(node.module or "", node.level)
                if (node.module or "").partition(".")[0] == "airflow":
                    for alias in node.names:
                        names._add_import(alias)
            elif isinstance(node, _FUNCTIONS):
                names.functions.setdefault(node.name, []).append(node)
        return names

    def _add_module(self, module: str, level: int) -> None:
        root = module.partition(".")[0]
        is_known = root in ("airflow", "airflow_modelarts") and "example" not in module
        self.has_unknown_imports |= bool(level) or not (is_known or root in sys.stdlib_module_names)

    def _add_import(self, alias: ast.alias) -> None:
        self.has_unknown_imports |= alias.name == "*" or "example" in alias.name
        if "dag" in alias.name.lower():
            self.from_airflow[alias.asname or alias.name] = alias.name

    def all_functions(self) -> list[_Function]:
        return [function for same_name in self.functions.values() for function in same_name]

    def is_dag_function(self, function: _Function) -> bool:
        return any(map(self.is_dag_decorator, function.decorator_list))

    def is_dag_decorator(self, decorator: ast.expr) -> bool:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Attribute):
            return called.attr == "dag"
        return isinstance(called, ast.Name) and self.from_airflow.get(called.id) == "dag"


class _ReachableCode(ast.NodeVisitor):
    """Visits the code that runs when the module is imported, and functions whose names that code uses.

    ``makes_dag`` is set when the class DAG itself is used, ``may_make_dag`` also when a DAG is only possible.
    """

    def __init__(self, names: _ModuleNames) -> None:
        self._names = names
        self._visited: set[int] = set()
        self.may_make_dag = False
        self.makes_dag = False
        self.names_under_main_guard: set[str] = set()

    def visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def has_visited(self, function: _Function) -> bool:
        return id(function) in self._visited

    def visit_FunctionDef(self, node: _Function) -> None:
        for decorator in node.decorator_list:
            if not self._names.is_dag_decorator(decorator):
                self.visit(decorator)
                # The decorator may call the function.
                self.may_make_dag |= self._names.is_dag_function(node)
                self._visit_body(node)
            elif isinstance(decorator, ast.Call):
                self.visit_all([*decorator.args, *(keyword.value for keyword in decorator.keywords)])
        self.visit(node.args)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - NodeVisitor looks for this name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            if isinstance(statement, _FUNCTIONS):
                # Any code that has an object of this class may call the method.
                self.may_make_dag |= self._names.is_dag_function(statement)
                self._visit_body(statement)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__"):
            used = (name for child in node.body for name in ast.walk(child) if isinstance(name, ast.Name))
            self.names_under_main_guard |= {name.id for name in used}
            self.visit_all(node.orelse)
        else:
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Name):  # a name alone, without parentheses, calls nothing
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            return
        if node.id in self._names.from_airflow or node.id in _INDIRECT:
            self.may_make_dag = True
            self.makes_dag |= self._names.from_airflow.get(node.id) == "DAG"
        for function in self._names.functions.get(node.id, ()):
            if self._names.is_dag_function(function):
                self.may_make_dag = self.makes_dag = True
            self._visit_body(function)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if "dag" in node.attr.lower():
            self.may_make_dag = True
            self.makes_dag |= node.attr == "DAG"
        self.generic_visit(node)

    def _visit_body(self, function: _Function) -> None:
        if not self.has_visited(function):
            self._visited.add(id(function))
            self.visit_all(function.body)
