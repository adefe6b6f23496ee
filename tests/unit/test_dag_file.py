"""The static check rejects files that certainly define no DAG, with the reason, and accepts all others."""

import ast
import os
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_modelarts.testing.command import UsageError
from airflow_modelarts.testing.dag_file import check_dag_file, why_no_dag

ROOT = Path(__file__).parents[2]


def complaint(tmp_path: Path, source: str | bytes) -> str:
    file = tmp_path / "my_dag.py"
    file.write_bytes(source if isinstance(source, bytes) else dedent(source).encode())
    with pytest.raises(UsageError) as caught:
        check_dag_file(file)
    return str(caught.value).replace(str(file), "FILE")


# Paths that are not Python files


def test_a_folder_is_rejected_and_its_python_files_are_listed(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"dag_{number:02}.py").touch()
    with pytest.raises(UsageError, match=r"is a folder: it holds dag_00\.py, .*dag_09\.py, …\. Name one DAG file"):
        check_dag_file(tmp_path)


@pytest.mark.parametrize("name", ["dags", "dags.py"])
def test_an_empty_folder_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"is a folder, with no Python file in it\. Name one DAG file"):
        check_dag_file(tmp_path / name)


def test_a_dangling_link_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "dag.py").symlink_to("gone.py")
    with pytest.raises(UsageError, match="there is no file"):
        check_dag_file(tmp_path / "dag.py")


def test_a_pipe_is_rejected_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dag.py")
    with pytest.raises(UsageError, match="is a device, a pipe or a socket"):
        check_dag_file(tmp_path / "dag.py")


# Syntax


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\ndag = DAG(\n", "FILE, line 2: '(' was never closed\n  dag = DAG(\n           ^"),
        ("def f():\n    x = = 1\n", "FILE, line 2: invalid syntax\n  x = = 1\n      ^"),
        ("return 1\n", "FILE, line 1: 'return' outside function"),
        ("if True:\nx = 1\n", "FILE, line 2: expected an indented block after 'if' statement on line 1"),
        ("print 'hello'\n", "FILE, line 1: Missing parentheses in call to 'print'."),
        ("await x\n", "FILE, line 1: 'await' outside function"),
        (b"x = '\xff'\n", "FILE"),
        (b"# coding: no-such-coding\n", "FILE"),
        (b"x = 1\n\x00", "FILE"),
    ],
)
def test_a_syntax_error_is_reported_with_its_line(tmp_path: Path, source: str | bytes, expected: str) -> None:
    assert complaint(tmp_path, source).startswith(expected)


def test_a_compiler_warning_is_not_an_error(tmp_path: Path) -> None:
    file = tmp_path / "my_dag.py"
    file.write_text("import helper\nx = '\\d'\nassert (1, 'true')\n")
    check_dag_file(file)


# Certainly no DAG, or possibly one

NO_DAG = {
    "nothing": ("", "defines no DAG"),
    "a docstring": ('"""What the DAG does."""', "defines no DAG"),
    "no Airflow": ("import json, os\nprint(json.dumps({}))", "defines no DAG"),
    "operators alone": (
        """
        from airflow_modelarts.sensors import ModelArtsProcessorTaskSensor
        wait = ModelArtsProcessorTaskSensor(task_id="wait", processor_task_id="x")
        """,
        "defines no DAG",
    ),
    "an import alone": ("from airflow.sdk import DAG, dag, task", "defines no DAG"),
    "a decorated function that is not called": (
        """
        from airflow.sdk import dag, task

        @dag(schedule=None)
        def pipeline():
            @task
            def one(): ...
            one()
        """,
        "FILE, line 5: @dag makes a DAG of pipeline() only when it is called. Add a line `pipeline()` at the end",
    ),
    "a bare decorator": ("from airflow.decorators import dag as d\n@d\ndef p(): ...", "3: @dag makes a DAG of p()"),
    "a decorator of a module": ("import airflow.sdk\n@airflow.sdk.dag\ndef p(): ...", "3: @dag makes a DAG of p()"),
    "a name without parentheses": (
        "from airflow.sdk import dag\n@dag\ndef p(): ...\np",
        "3: @dag makes a DAG of p() only when",
    ),
    "called under the main guard": (
        """
        from airflow.sdk import dag

        @dag
        def pipeline(): ...

        if __name__ == "__main__":
            pipeline().test()
        """,
        "line 5: @dag makes a DAG of pipeline() only when it is called, and Airflow runs nothing below `if",
    ),
    "a factory that is not called": (
        """
        from airflow.sdk import DAG

        def make(name):
            with DAG(name) as made:
                return made
        """,
        "FILE, line 4: make() would make a DAG, but nothing calls it when Airflow imports the file",
    ),
    "a function that is not called and uses DAG attributes": (
        "from airflow.sdk import task\ndef f(context): return context.dag_run, getattr(context, 'x')",
        "FILE defines no DAG",
    ),
    "a chain of calls that is not started": (
        """
        from airflow.sdk import dag

        def make():
            return pipeline()

        def main():
            make()

        @dag
        def pipeline(): ...
        """,
        "FILE, line 4: make() would make a DAG",
    ),
}
POSSIBLY_A_DAG = {
    "with": "from airflow import DAG\nwith DAG('x'): pass",
    "an alias": "from airflow.models.dag import DAG as D\nd = D('x')",
    "a static method": (
        "from airflow.sdk import dag\nclass Dags:\n    @staticmethod\n    @dag\n    def one(): ...\nDags.one()"
    ),
    "a decorator that calls what @dag made": (
        "from airflow.sdk import dag\ndef call(f):\n    return f()\n@call\n@dag\ndef one(): ..."
    ),
    "a method": "from airflow.sdk import dag\nclass Dags:\n    @dag('x')\n    def one(self): ...\nDags().one()",
    "a module": "from airflow import models\nd = models.DAG('x')",
    "the root module": "import airflow\nd = airflow.DAG('x')",
    "compat": "from airflow.providers.common.compat.sdk import DAG\nd = DAG('x')",
    "a call": "from airflow.sdk import dag\n@dag\ndef p(): ...\np()",
    "a call in a loop": "from airflow.sdk import dag\nfor n in 'ab':\n    @dag(dag_id=n)\n    def p(): ...\n    p()",
    "a decorator called as a function": "from airflow.sdk import dag\ndef p(): ...\nd = dag()(p)()",
    "a function as an argument": "from airflow.sdk import dag\n@dag\ndef p(): ...\nlist(map(lambda f: f(), [p]))",
    "a call by name": "from airflow.sdk import dag\n@dag\ndef p(): ...\nglobals()['p']()",
    "a factory": "from airflow.sdk import DAG\ndef make(): return DAG('x')\nd = make()",
    "a factory of a factory": "from airflow.sdk import DAG\ndef a(): return DAG('x')\ndef b(): return a()\nd = b()",
    "a class": "from airflow.sdk import DAG\nclass F:\n    def make(self): return DAG('x')\nd = F().make()",
    "a subclass": "from airflow.sdk import DAG\nclass Ours(DAG): ...\nd = Ours('x')",
    "an import from a helper": "from helper import d",
    "a factory of a helper": "import helper\nd = helper.make()",
    "a relative import": "from . import helper",
    "a star": "from airflow.sdk import *\nd = DAG('x')",
    "an example": "from airflow.example_dags.tutorial import dag as d",
    "a decorator that calls": (
        "from airflow.sdk import DAG\ndef at_once(f): return f()\n@at_once\ndef d(): return DAG('x')"
    ),
    "try": "try:\n    from airflow.sdk import DAG\nexcept ImportError:\n    from airflow import DAG\nd = DAG('x')",
    "else of the main guard": (
        "from airflow.sdk import DAG\nif __name__ == '__main__':\n    pass\nelse:\n    d = DAG('x')"
    ),
    "a default": "from airflow.sdk import DAG\ndef f(d=DAG('x')): return d\ne = f()",
    "importlib": "import importlib\nd = importlib.import_module('helper').d",
    "exec": "exec(open('other.py').read())",
    "one of two is called": "from airflow.sdk import dag\n@dag\ndef p(): ...\n@dag\ndef q(): ...\nq()",
}


@pytest.mark.parametrize("name", NO_DAG)
def test_a_file_that_certainly_defines_no_dag_is_rejected_with_the_reason(tmp_path: Path, name: str) -> None:
    source, expected = NO_DAG[name]
    assert expected in complaint(tmp_path, source)


@pytest.mark.parametrize("name", POSSIBLY_A_DAG)
def test_a_file_that_may_define_a_dag_is_accepted(name: str) -> None:
    assert why_no_dag(ast.parse(POSSIBLY_A_DAG[name])) is None


@pytest.mark.parametrize(
    "name",
    sorted(
        str(file.relative_to(ROOT))
        for file in [*ROOT.glob("dags_examples/*.py"), *ROOT.glob("tests/**/*.py")]
        if file.parent.name in ("dags_examples", "dags", "event_dags")
    ),
)
def test_the_dag_files_of_this_repository_are_accepted(name: str) -> None:
    check_dag_file(ROOT / name)
