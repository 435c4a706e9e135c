"""Run one exercise of one submission and answer in plain data.

The grader starts this file as a program of its own (`python -I runner.py`, in a sandbox where there is one).
It must therefore import nothing but the standard library, and it holds nothing a learner may not read: inputs
come in through standard input, outcomes go back through what was standard output, nothing is compared here.
"""

import ast
import importlib.abc
import importlib.machinery
import json
import os
import re
import sys
import types

DEEPEST = 60                  # levels of nesting that an answer may have
LONGEST_INT = 4096            # bits; Python refuses to print integers of more than 4,300 digits


class Other:
    """Stands for a value that is not plain data; equal to nothing but itself."""

    def __init__(self, kind):
        self.kind = str(kind)[:80]

    def __repr__(self):
        return f"<{self.kind}>"


def encode(value, depth=0):
    """Turn a value into JSON that keeps types apart: a scalar, or [type, content]."""
    if type(value) is Other:
        return ["other", value.kind]
    if depth > DEEPEST:
        return ["other", "structure that is nested too deeply"]
    if value is None or isinstance(value, bool | str):
        return str.__str__(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= LONGEST_INT else ["other", "integer that is too long"]
    if isinstance(value, float):
        return float(value) if value - value == 0 else ["float", repr(float(value))]     # nan, inf
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]]
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return [kind.__name__, [encode(item, depth + 1) for item in value]]
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return encode(value.item(), depth + 1)
    # Tensors and arrays: a lesson that needs them adds ["tensor", {shape, dtype, data}] here and in `decode`.
    return ["other", type(value).__name__]


def decode(data):
    """Turn what `encode` made back into a value; raises ValueError or TypeError on anything else."""
    if data is None or type(data) in (bool, int, float, str):
        return data
    if type(data) is not list or len(data) != 2:
        raise ValueError("not an encoded value")
    kind, content = data
    if kind == "float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if kind == "other" and type(content) is str:
        return Other(content)
    if kind == "bytes" and type(content) is str:
        return bytes.fromhex(content)
    if kind in ("list", "tuple", "set") and type(content) is list:
        return {"list": list, "tuple": tuple, "set": set}[kind](decode(item) for item in content)
    if kind == "dict" and type(content) is list and all(type(p) is list and len(p) == 2 for p in content):
        return {decode(k): decode(v) for k, v in content}
    raise ValueError("not an encoded value")


def call(function, args):
    """Call a function on a deep copy of its arguments and say what happened, as JSON-able data.

    Either {"value": encoded, "changed": whether it changed its arguments} or {"raised": names of the
    exception's class and bases, "text": its message}. KeyboardInterrupt passes.
    """
    before = encode(args)
    copy = decode(before)
    try:
        value = encode(function(*copy))
        return {"value": value, "changed": encode(copy) != before}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return raised(error)


def raised(error):
    """Describe an exception, even one whose `__str__` fails."""
    kinds = [k.__name__ for k in type(error).__mro__ if k not in (object, BaseException, Exception)]
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    return {"raised": kinds or [type(error).__name__], "text": text}


class LabkitStub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for labkit, which submissions may not see: set-up cells import from it to no effect.

    asked: what of labkit was asked for, in dotted names; the report says so.
    """

    def __init__(self):
        self.asked = []

    def find_spec(self, name, path=None, target=None):
        if name == "labkit" or name.startswith("labkit."):
            self.asked.append(name)
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        def attribute(name):
            if name.startswith("__"):
                raise AttributeError(name)
            self.asked.append(f"{module.__name__}.{name}")
            if name == "check":
                return lambda *args, **kwargs: None

            def absent(*args, **kwargs):
                raise RuntimeError(f"labkit's {name} is not available while an exercise is graded")

            return absent

        module.__getattr__ = attribute


def parse(source):
    """Parse a cell; lines of notebook magic become `pass`. Raises SyntaxError."""
    if source.lstrip().startswith("%%"):
        source = source.lstrip().partition("\n")[2]
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse(re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.M))


def names_in(cells):
    """The names that occur in cells."""
    found = set()
    for source in cells:
        try:
            found.update(node.id for node in ast.walk(parse(source)) if isinstance(node, ast.Name))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return found


def imports_of(statement, names):
    """The statement if it imports one of these names, else None."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return None
    statement.names = [a for a in statement.names if (a.asname or a.name.partition(".")[0]) in names]
    return statement if statement.names else None


def run_setup(source, namespace, only=None):
    """Run a set-up cell statement by statement, so that one that cannot work here does not lose the rest.

    only: of a lesson's other cells, run what imports one of these names.
    """
    try:
        statements = parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in statements if only is None else [s for s in statements if imports_of(s, only)]:
        try:
            exec(compile(ast.Module([statement], []), "<set-up cell>", "exec"), namespace)
        except BaseException:
            continue


def answer(request, stub):
    """Run the cells, then the function on every input; says too what they asked of labkit."""
    module = types.ModuleType("__main__")
    module.display = lambda *args, **kwargs: None
    sys.modules["__main__"] = module
    names = names_in(request["cells"])
    for source, whole in request["setup"]:
        run_setup(source, module.__dict__, None if whole else names)
    stub.asked.clear()                          # a lesson's own imports are no part of the answer
    reply = run_cells(request, module.__dict__)
    return reply | {"asked": sorted(set(stub.asked))[:20]}


def run_cells(request, namespace):
    try:
        for source in request["cells"]:
            exec(compile(parse(source), "<exercise cell>", "exec"), namespace)
    except BaseException as error:
        return {"cell": raised(error)}
    function = namespace.get(request["function"])
    if not callable(function):
        return {"missing": True}
    return {"outcomes": [call(function, decode(args)) for args in request["inputs"]]}


def limit(memory):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def main():
    request = json.loads(sys.stdin.buffer.read())
    channel = os.dup(1)                         # what a submission prints goes nowhere
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    stub = LabkitStub()
    sys.meta_path.insert(0, stub)
    dumps, write, leave = json.dumps, os.write, os._exit     # kept from before the submission can patch them
    limit(request["memory"])
    data = (dumps(answer(request, stub)) + "\n").encode()
    while data:
        data = data[write(channel, data):]
    leave(0)                                    # threads that a submission left running do not count


if __name__ == "__main__":
    main()
