"""The structure of the package, read from its source: sizes, names, imports and their order."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mvssl

ROOT = Path(mvssl.__file__).parent

# Lower packages never import higher ones. Packages on one line may not import each other.
ORDER = (
    ("errors",),
    ("text", "files", "random"),
    ("process",),
    ("recipe",),
    ("distributed",),
    ("data",),
    ("views",),
    ("checkpoints",),
    ("encoders",),
    ("objectives",),
    ("model", "optim"),
    ("runs",),
    ("evaluation",),
    ("monitoring",),
    ("training",),
    ("figures",),
    ("exporting", "embedding"),
    ("reporting",),
    ("bench", "pipeline"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}

# Libraries that may be imported inside functions: extras, which need not be installed, and what few commands need.
LATE = {"accelerate", "imagecodecs", "lightly", "pyarrow", "scipy", "sklearn", "soundfile", "tifffile", "torchvision"}
LATE |= {"webdataset"}
# Modules that import others of mvssl inside functions; to be mended, except where the others load matplotlib.
LATE_MODULES = {
    "mvssl.pipeline.afterwards",
    "mvssl.pipeline.pictures",
}


class Import(NamedTuple):
    """One imported name: by which module, from which, and whether inside a function or only for the type checker."""

    module: str
    target: str
    name: str
    inside: bool
    typing: bool


def modules() -> dict[str, Path]:
    """Every module of mvssl by its dotted name."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ("mvssl", *file.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


MODULES = modules()
TREES = {name: ast.parse(file.read_text()) for name, file in MODULES.items()}
PACKAGES = {name: file.parent for name, file in MODULES.items() if file.name == "__init__.py"}


def imports(module: str) -> Iterator[Import]:
    """Every import statement of a module, one item for each name."""
    return _imports(module, TREES[module], inside=False, typing=False)


def _imports(module: str, node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield Import(module, full if full in MODULES else child.module, alias.name, inside, typing)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, alias.name, inside, typing)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checked = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(module, child, inside or function, typing or checked)


IMPORTS = [item for module in MODULES for item in imports(module)]


def top(module: str) -> str:
    """The package or root module that a dotted name lies in: data for mvssl.data.order."""
    return [*module.split("."), ""][1]


def test_the_root_holds_packages_and_at_most_six_modules():
    files = {file.stem for file in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert len(files) <= 6, files
    assert {name.split(".")[1] for name in PACKAGES if "." in name} | files == set(LEVEL)


def test_a_package_holds_at_most_14_modules():
    for name, folder in PACKAGES.items():
        held = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(held) <= 14, (name, held)


def test_every_folder_with_modules_is_a_package():
    folders = {Path(folder) for folder, _, files in os.walk(ROOT) if any(file.endswith(".py") for file in files)}
    assert folders == set(PACKAGES.values())


def test_no_file_is_above_300_lines():
    assert not {name for name, file in MODULES.items() if len(file.read_text().splitlines()) > 300}


def test_no_module_is_called_core_common_or_utils():
    assert not {part for name in MODULES for part in name.split(".")} & {"core", "common", "utils", "helpers", "misc"}


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_package_says_what_comes_in_and_what_goes_out(name):
    text = ast.get_docstring(TREES[name]) or ""
    lines = text.splitlines()
    assert any(line.startswith("in ") for line in lines), text
    assert any(line.startswith("out ") for line in lines), text


def test_modules_import_each_other_in_no_circle():
    needs = {
        module: {i.target for i in IMPORTS if i.module == module and not i.inside and not i.typing} & set(MODULES)
        for module in MODULES
    }
    left = dict(needs)
    while free := [module for module, targets in left.items() if not targets & (set(left) - {module})]:
        for module in free:
            del left[module]
    assert not left, {module: sorted(targets & set(left)) for module, targets in left.items()}


def test_reading_data_does_not_import_packing():
    inside = {i.module for i in IMPORTS if i.target.startswith("mvssl.data.packing") and top(i.module) == "data"}
    assert all(module.startswith("mvssl.data.packing") for module in inside)


def test_packages_import_only_lower_ones():
    upward = {
        (i.module, top(i.target))
        for i in IMPORTS
        if i.target.startswith("mvssl.") and not i.typing and top(i.module) in LEVEL and top(i.target) in LEVEL
        if top(i.module) != top(i.target) and LEVEL[top(i.target)] >= LEVEL[top(i.module)]
    }
    assert not upward


def test_imports_stand_at_the_top_of_a_module():
    late = {i for i in IMPORTS if i.inside and top(i.module) != "cli"}
    assert {i.target.split(".")[0] for i in late if not i.target.startswith("mvssl.")} <= LATE
    assert {i.module for i in late if i.target.startswith("mvssl.")} <= LATE_MODULES


def test_views_and_objectives_are_named_only_in_their_packages():
    """Others know the base classes, and look classes up by a recipe's name."""
    for package, base in (("views", "View"), ("objectives", "Objective")):
        classes = {
            node.name
            for module, tree in TREES.items()
            if module.startswith(f"mvssl.{package}.")
            for node in tree.body
            if isinstance(node, ast.ClassDef) and any(base in ast.unparse(parent) for parent in node.bases)
        }
        named = {(i.module, i.name) for i in IMPORTS if top(i.module) != package and i.name in classes}
        assert not {(module, name) for module, name in named if name != base}


def test_no_two_test_files_share_a_name():
    """Pytest imports each by its file's name, and so do the processes that run its functions."""
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
