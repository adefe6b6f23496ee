"""What a test file imports, also in functions and through other modules, by reading the source."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def chain_to_airflow(file: Path) -> list[str]:
    """Return the imports that lead from a file to Airflow, in their order; empty if none does."""
    seen, to_visit = set(), [(file, [str(file.relative_to(ROOT))])]
    while to_visit:
        file, chain = to_visit.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in imported(file):
            if name == "airflow" or name.startswith("airflow."):
                return [*chain, name]
            to_visit += [(found, [*chain, name]) for found in modules(name)]
    return []


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the dotted names that a file imports, but for those that only type checkers import."""
    names: set[str] = set()
    to_visit: list[ast.AST] = [ast.parse(file.read_text())]
    while to_visit:
        node = to_visit.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        to_visit += ast.iter_child_nodes(node)
    return frozenset(names)


@cache
def modules(name: str) -> list[Path]:
    """Return the files of this repository that an import of a dotted name runs."""
    parts = name.split(".")
    if parts[0] not in ("airflow_modelarts", "tests"):
        return []
    paths = [ROOT.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    return [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
