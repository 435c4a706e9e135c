"""What tuning found, in tuning.jsonl: a line for each learning rate tried, with the held-out loss it reached.

A loss of null says that the rate diverged. The lines are read as hostile data, like every file here.
"""

from labkit.exercises.retest import files
from labkit.exercises.retest.files import Refused

TUNING = "tuning.jsonl"
MOST_LINES = 1000


def read(folder, methods):
    """{(method, rate): held-out loss, or None for one that diverged}; raises Refused."""
    lines = files.read_bytes(folder / TUNING).splitlines()
    if len(lines) > MOST_LINES:
        raise Refused(f"{TUNING} has more than {MOST_LINES} lines")
    found = {}
    for at, text in enumerate(lines, 1):
        where = f"{TUNING}, line {at}"
        line = files.parse(text, where)
        if line.get("method") not in tuple(methods):
            raise Refused(f"{where}: this claim compares {' and '.join(methods)}")
        key = line["method"], files.number(line.get("lr"), f"{where}: lr", 0, 1000)
        if key in found:
            raise Refused(f"{where}: {key[0]} at {key[1]:g} stands twice")
        loss = line.get("loss")
        found[key] = None if loss is None else files.number(loss, f"{where}: loss", 0, 1000)
    return found


def best(found, method):
    """The rate of a method with the lowest loss; None where every one diverged or none was tried."""
    reached = {rate: loss for (name, rate), loss in found.items() if name == method and loss is not None}
    return min(reached, key=reached.get, default=None)


def shown(found, method):
    """A method's rates and losses as text."""
    tried = sorted((rate, loss) for (name, rate), loss in found.items() if name == method)
    return ", ".join(f"{rate:g}: {'diverged' if loss is None else f'{loss:.3f}'}" for rate, loss in tried)
