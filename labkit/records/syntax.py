"""Python as text that comments, docstrings and layout leave alone: what digests and carried outputs go by."""

import ast
import re

IMPORT = ast.Import | ast.ImportFrom
EMPTY = "Module()"  # the syntax tree of no code, as text


def tree(source, used=None):
    """The syntax tree of `source` as text, without docstrings; notebook magics are kept as they are.

    With `used`, a set of names, imports of any other name are left out.
    """
    magics, module = _parsed(source)
    if module is None:
        return source
    if used is not None:
        module.body = [node for node in module.body if not isinstance(node, IMPORT) or _keep_only(node, used)]
    documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    for node in ast.walk(module):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return "\n".join([*magics, _dump(module)])


def names(source):
    """Names that a cell's code reads or binds, imports apart; of its magics, every word."""
    magics, module = _parsed(source)
    nodes = ast.walk(module) if module else ()
    text = "\n".join(magics) if module else source
    return {node.id for node in nodes if isinstance(node, ast.Name)} | set(re.findall(r"\w+", text))


def _parsed(source):
    """The magics of a cell as a list of lines, and its syntax tree; no tree for a %%bash or %%html cell."""
    lines = source.splitlines()
    magics = [line for line in lines if line.lstrip().startswith(("%", "!"))]
    try:
        return magics, ast.parse("\n".join(line for line in lines if line not in magics))
    except SyntaxError:
        return magics, None


def _keep_only(node, used):
    """Leave only names in `used` to an import; whether any is left."""
    used = {*used, "*"}
    node.names = [one for one in node.names if (one.asname or one.name.partition(".")[0]) in used]
    return bool(node.names)


def _dump(node):
    """Like `ast.dump`, but the same on every Python: fields that are empty, as new ones are, stay out."""
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields)
        kept = [f"{name}={_dump(value)}" for name, value in fields if value is not None and value != []]
        if isinstance(node, ast.JoinedStr):  # 3.12 adds empty pieces to f-strings
            kept = [_dump([part for part in node.values if getattr(part, "value", None) != ""])]
        return f"{type(node).__name__}({', '.join(kept)})"
    return f"[{', '.join(map(_dump, node))}]" if isinstance(node, list) else repr(node)
