"""The walls of the architecture: who imports whom, what nobody may do, how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "private_keras"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if not p.name.endswith(("_pb2.py", "_pb2_grpc.py")))
CLIENT_ONLY = {"keras", "tensorflow", "h5py", "sklearn", "matplotlib", "scipy"}
SERVER_ROOMS = {"server", "plan", "protocols", "ring", "transport", "errors"}
# A room may import the rooms of lower rank, and itself.
RANK = {
    "errors": 0,
    "ring": 1,
    "transport": 1,
    "plan": 2,
    "protocols": 2,
    "server": 3,
    "cluster": 4,
    "data": 5,
    "tensor": 5,
    "tracing": 5,
    "layers": 6,
    "converter": 6,
    "forecast": 6,
    "models": 7,
    "federated": 8,
}
# Where a room stands twice in a row of the same rank, these do not know each other.
STRANGERS = {("plan", "protocols"), ("protocols", "plan"), ("ring", "transport"), ("transport", "ring")}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "marshal", "dill", "cloudpickle", "shelve", "random"}
# May be imported inside functions: heavy, optional, or (the extension) missing on a machine where it was not built.
HEAVY = {"keras", "tensorflow", "h5py", "matplotlib", "pyarrow"}
ON_DEMAND = {
    f"private_keras.ring.{name}"
    for name in ("native_kernel", "native_kernel.NativeKernel", "memory", "memory.ArrayMemory")
}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(tree: ast.AST):
    """(module, node) of every import statement, absolute names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module, node
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_walls(path):
    tree = ast.parse(path.read_text())
    here = room(path)
    inside_functions = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    for name, node in imports(tree):
        top = name.split(".")[0]
        if here in SERVER_ROOMS:
            assert top not in CLIENT_ONLY, f"{here} must not import {name}"
        assert top not in FORBIDDEN_MODULES, f"{name} must not be used"
        if top == "private_keras" and here in RANK:
            parts = name.split(".")
            there = parts[1] if len(parts) > 1 else None
            if there in RANK and there != here:
                assert (here, there) not in STRANGERS, f"{here} and {there} do not know each other"
                assert RANK[there] <= RANK[here], f"{here} must not import {there}: imports go downwards"
        if id(node) in inside_functions:
            assert top in HEAVY or name in ON_DEMAND or here in {"cli", "__init__"}, (
                f"hidden import of {name} in a function"
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{node.func.id}() must not be used (line {node.lineno})"
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            assert not dotted.startswith(("np.random", "numpy.random")), (
                "randomness comes from `secrets` and the ring kernel"
            )
            assert dotted != "ssl.CERT_NONE"
        if isinstance(node, ast.Assert):
            raise AssertionError(f"library code raises errors of the tree instead of `assert` (line {node.lineno})")
        if isinstance(node, ast.FunctionDef):
            assert node.name != "__getattribute__"


# Of fields with arrays: those that all servers know, or that hold no numbers.
PUBLIC_FIELDS = {"public", "rows", "indices", "mixtures", "tallies", "PublicValue.values"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_printed_shows_no_arrays(path):
    """Tracebacks and notebooks print what they find: fields with arrays of a dataclass are left out of its text."""
    for node in ast.walk(ast.parse(path.read_text())):
        made = isinstance(node, ast.ClassDef) and [ast.unparse(d) for d in node.decorator_list]
        if not made or not any("dataclass" in d for d in made) or any("repr=False" in d for d in made):
            continue
        for item in (item for item in node.body if isinstance(item, ast.AnnAssign)):
            kind, name = ast.unparse(item.annotation), item.target.id
            if ("ndarray" in kind or "bytearray" in kind) and not kind.startswith("Callable"):
                public = name in PUBLIC_FIELDS or f"{node.name}.{name}" in PUBLIC_FIELDS
                assert public or "repr=False" in ast.unparse(item.value or ast.Constant("")), f"{node.name}.{name}"


def test_file_lengths():
    sizes = sorted(len(p.read_text().splitlines()) for p in FILES)
    assert sizes[len(sizes) // 2] <= 150
    assert sizes[-1] <= 400


def test_openings_happen_in_one_method_per_role():
    """`output` is the only way out of a protocol, and only the executor calls it."""
    callers = {
        str(p.relative_to(PACKAGE))
        for p in FILES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "output"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"p", "protocol", "party"}
    }
    assert len(callers) == 1 and next(iter(callers)).startswith("server/execute/"), callers


@pytest.mark.parametrize(
    "module",
    [
        "private_keras.server.service",
        "private_keras.server.execute",
        "private_keras.protocols.trio",
        "private_keras.plan.plan",
        "private_keras.cli",
    ],
)
def test_servers_do_not_load_keras(module):
    """In a process started as a server, importing any of its rooms loads none of the client's heavy libraries."""
    program = (
        "import sys; sys.orig_argv = [sys.executable, '-m', 'private_keras', 'serve']\n"
        f"import {module}\n"
        f"heavy = {sorted(CLIENT_ONLY)!r}\n"
        "loaded = [m for m in heavy if m in sys.modules]\n"
        "sys.exit('loaded: ' + ', '.join(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
