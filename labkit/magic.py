"""`%%gpu`: run a cell where there is a GPU, elsewhere print what the recorded run printed.

Only text is recorded (printed lines and the text form of displayed objects, widgets apart); a figure drawn
in a `%%gpu` cell is shown on the GPU machine and not elsewhere.
"""

import ast
import hashlib
import json
import os
import sys

from labkit import paths

KEY = "gpu_cells"


def register():
    """Make `%%gpu` known to the running IPython shell; does nothing outside IPython."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.register_magic_function(gpu, magic_kind="cell", magic_name="gpu")


def gpu(line, cell):
    """The magic itself. Errors of the cell propagate; nothing is recorded then."""
    if _has_gpu():
        value, text = _run(cell)
        if os.environ.get("LABKIT_RECORD"):
            from labkit.records.store import note

            note(os.environ["LABKIT_RECORD"], KEY, {digest(cell): text})
        return value
    found = recorded(digest(cell))
    if found is None:
        print("(no GPU here, and no recorded run of this cell yet)")
    else:
        print(f"(no GPU here: this is what the recorded run on {found[1]} printed)")
        print(found[0], end="")
    return None


def digest(cell):
    """16 hex digits that name a cell by its content; blanks at line ends do not count."""
    text = "\n".join(line.rstrip() for line in cell.strip().splitlines())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(name, folder=None):
    """`(text, device)` of the recorded run of a cell, or None; reads all files in `folder`."""
    for path in sorted((folder or paths.MEASUREMENTS).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # the records' own test complains about such a file
        if isinstance(content, dict) and name in content.get(KEY, {}):
            return content[KEY][name], content.get("machine", {}).get("device", "a GPU")
    return None


def _has_gpu():
    from labkit.env import device

    return device().type == "cuda"


class _Tee:
    """Writes to the notebook's stdout and remembers what was written."""

    def __init__(self, stream, parts):
        self._stream, self._parts = stream, parts

    def write(self, text):
        self._parts.append(text)
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _run(cell):
    """Run a cell in the user's namespace: its last expression's value, and its printed text."""
    from IPython import get_ipython

    shell = get_ipython()
    parts = []
    code = shell.transform_cell(cell)
    name = shell.compile.cache(code, shell.execution_count, cell)  # so that tracebacks show lines
    body = ast.parse(code, filename=name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    publish, stdout = shell.display_pub.publish, sys.stdout

    def publish_and_keep(data, *args, **kwargs):
        parts.append(_as_text(data))
        return publish(data, *args, **kwargs)

    shell.display_pub.publish, sys.stdout = publish_and_keep, _Tee(stdout, parts)
    try:
        exec(compile(ast.Module(body, type_ignores=[]), name, "exec"), shell.user_ns)
        value = eval(compile(ast.Expression(last.value), name, "eval"), shell.user_ns) if last else None
    finally:
        shell.display_pub.publish, sys.stdout = publish, stdout
    if value is None or cell.rstrip().endswith(";"):
        return None, "".join(parts)
    parts.append(_as_text(shell.display_formatter.format(value)[0]))
    return value, "".join(parts)


def _as_text(data):
    """The text of displayed data, a dict by mime type; none for a widget: a progress bar is no result."""
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    if any(kind.startswith("image/") for kind in data):
        return "(a figure, shown on the GPU machine only)\n"
    return (data.get("text/markdown") or data.get("text/plain", "")) + "\n"
