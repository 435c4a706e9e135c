"""Stored outputs: carried over from the last build, and freed of what changes from run to run."""

import re
from pathlib import Path

from nbformat import NotebookNode

from labkit import paths
from labkit.records import syntax

WIDGET = "application/vnd.jupyter.widget-view+json"
# Addresses, the kernel's own file names, and the folders of this machine.
VOLATILE = (
    (re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b"), "at 0x..."),
    (re.compile(r"(?<!\S)\S*[/\\]ipykernel_\d+[/\\]\d+\.py"), "<cell>"),
    (re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\":]*[/\\]site-packages[/\\]"), "site-packages/"),
    (re.compile(re.escape(str(paths.ROOT)) + r"[/\\]"), ""),
    (re.compile(re.escape(str(Path.home())) + r"(?=[/\\])"), "~"),
)
# Libraries telling each other of renamed options: the file, the warning, and the line it quotes.
DEPRECATION = re.compile(r"^\S+:\d+: (?:Future|Deprecation)Warning: .*\n(?:  .*\n?)?", re.MULTILINE)


def carry(notebook, stored):
    """Give each code cell of `notebook` the outputs of the cell with the same id in `stored`.

    A cell whose id is new gets those of the one that differs in comments or docstrings alone.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    known = {cell.get("id"): cell for cell in stored.cells if cell.cell_type == "code"}
    ids = {cell["id"] for cell in code}
    alike = {}  # stored cells that are no more, by their code; of equal ones, the first goes first
    for name, cell in known.items():
        if name not in ids:
            alike.setdefault(syntax.tree(cell.source), []).append(cell)
    for cell in code:
        found = [known[cell["id"]]] if cell["id"] in known else alike.get(syntax.tree(cell.source))
        if found:
            old = found.pop(0)
            cell.outputs = old.outputs
            cell.execution_count = old.execution_count
    return clean(notebook)


def clean(notebook):
    """Strip from every output, in place, what would differ in another run; returns the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = _clean(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    return notebook


def blank(cell):
    """Forget that a code cell was run, in place."""
    cell.outputs = []
    cell.execution_count = None


def _clean(outputs):
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            last = kept[-1] if kept else None
            if last and last.output_type == "stream" and last.name == output.name:
                last.text += output.text
            else:
                kept.append(NotebookNode(output))
        elif WIDGET not in output.get("data", {}):  # a static viewer shows nothing of a widget
            data = output.get("data", {})
            for kind in data:
                if kind.startswith("text/") and isinstance(data[kind], str):
                    data[kind] = _settled(data[kind])
            if "image/png" in data:
                data.pop("text/html", None)  # the same picture, for JupyterLab's alt text (`plots.show`)
            output.pop("transient", None)
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = _settled(_last_state(output.text))
        if output.get("name") == "stderr":
            output.text = DEPRECATION.sub("", output.text)
    # A progress bar with leave=False, or one whose widget took over, leaves an empty line behind.
    return [o for o in kept if o.output_type != "stream" or o.name != "stderr" or o.text.strip()]


def _settled(text):
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    return text


def _last_state(text):
    """What a terminal shows in the end of lines that carriage returns wrote over."""
    return "\n".join(_overwritten(line) for line in text.replace("\r\n", "\n").split("\n"))


def _overwritten(line):
    if "\r" not in line:
        return line
    last = next((part for part in reversed(line.split("\r")) if part), "")
    return last.rstrip()
