"""`import peftlab as pl` is all that a user of the Python API needs, and costs nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import peftlab as pl
from peftlab.methods import REGISTRY

PACKAGE = Path(pl.__file__).parent


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def test_importing_touches_no_other_module() -> None:
    code = (
        "import sys; before = set(sys.modules); import peftlab;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    allowed = set(ast.literal_eval(python("-c", code).stdout)) - {"peftlab"}
    assert allowed <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["methods"],
        ["methods", "--model", "gpt2-medium"],
        ["tasks"],
        ["report", str(PACKAGE.parent / "tests/data/commit_337d2ee/comparison")],
    ],
    ids=" ".join,
)
def test_light_commands_leave_torch_alone(command: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['peftlab', *{command!r}]\n"
        "from peftlab.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    ended = python("-c", code, cwd=tmp_path)
    assert ended.stdout and ended.stderr.splitlines()[-1] == "False", ended.stderr


def test_torch_after_peftlab_is_torch() -> None:
    code = "import peftlab, peftlab.edits, torch; print(type(torch).__name__, torch.ones(2).sum())"
    assert python("-c", code).stdout == "module tensor(2.)\n"


def test_no_name_is_hidden_by_a_submodule() -> None:
    for module in walk_packages([str(PACKAGE)], "peftlab."):
        if not module.name.endswith("__main__") and not module.name.startswith("peftlab.study"):
            import_module(module.name)
    for name in set(pl.__all__) - {"__version__"}:
        assert callable(getattr(pl, name)), name


def test_every_method_has_its_class_here() -> None:
    for cls in REGISTRY.values():
        assert getattr(pl, cls.__name__) is cls


def test_editors_see_what_is_there() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert (PACKAGE / "py.typed").exists()
    for name, module in imported.items():
        assert getattr(pl, name) is getattr(import_module(str(module)), name), name
    assert set(pl.__all__) - {"__version__"} <= set(imported)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lora'"):
        pl.Lora  # noqa: B018


SCRIPT = """
import peftlab as pl

model = pl.load("demo")
task = pl.load_task("demo", limit=12, test_limit=5)
lora = pl.train(model, pl.LoRA(rank=2), task, steps=2, batch_size=2)
prompt = pl.train(model, "prompt_tuning:length=2", task, steps=2, batch_size=2)
scores = pl.evaluate(model, lora, task).scores
print(sorted(scores.corpus))
for reply in pl.generate(model, [(lora, "a text"), (prompt, "a text")], max_new_tokens=3):
    print(len(reply.tokens))
lora.save("lora")
again = pl.load_adaptation("lora", model)
assert pl.generate(model, [(again, "a")], max_new_tokens=3) == pl.generate(
    model, [(lora, "a")], max_new_tokens=3
)
result = pl.compare(
    "demo", task, ["lora:rank=1", pl.PromptTuning(length=2)], seeds=2, out="runs",
    steps=2, batch_size=2, general_text="none",
)
assert len(result.records) == 4
print(result.verdict)
"""


def check(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("['rouge1', 'rouge2', 'rougeL']") == 1, "a child ran the script again"
    assert "prompt_tuning" in "".join(ended.stdout.splitlines()[-2:])  # a busy machine is said last


@pytest.mark.slow
def test_the_example_as_a_script_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    check(python("script.py", cwd=tmp_path))


@pytest.mark.slow
def test_the_example_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT)])
    NotebookClient(book, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for output in book.cells[0].outputs)
    assert "prompt_tuning" in "".join(said.strip().splitlines()[-2:])  # a busy machine is said last


@pytest.mark.slow
def test_the_example_under_dash_c(tmp_path: Path) -> None:
    check(python("-c", SCRIPT, cwd=tmp_path))
