"""README.md and the pages in docs/: their text, their marked code blocks and their tables."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: The text of each page, by its path in the repository.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}

_EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
_SHELL = re.compile(r"<!-- ((?:command|shell): \w+) -->\n```bash\n(.*?)\n```", re.DOTALL)


def _blocks(pattern: re.Pattern[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for page, text in PAGES.items():
        for name, code in pattern.findall(text):
            assert found.setdefault(name, code) == code, f"{page} has another block of the name '{name}'"
    return found


#: The Python blocks, by the name in the comment ``<!-- example: NAME -->`` before each.
EXAMPLES = _blocks(_EXAMPLE)
#: The shell blocks, by the comment ``<!-- command: NAME -->`` or ``<!-- shell: NAME -->`` before each.
SHELL = _blocks(_SHELL)


def table(page: str, first_column: str) -> list[list[str]]:
    """Return the rows of the page's table whose header begins with this column, without the header."""
    lines = PAGES[page].splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" |")])
    return rows


def code(cell: str) -> str:
    """Return what stands between the first pair of backticks of a cell."""
    return cell.split("`")[1]
