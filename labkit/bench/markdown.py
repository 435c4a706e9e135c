"""What reports of benchmarks share: tables in Markdown, and what stands there before a record does."""

from functools import wraps

from labkit.records import store


def missing(name):
    """How to make the record `name`, in one line."""
    return f"not measured yet: python -m labkit bench {name}"


def values(name):
    """The values of the record `name`; None before there is one."""
    whole = store.read(name)
    return whole and whole["values"]


def measured(name):
    """A decorator for tables of the record `name`: they read its values unless given any."""

    def decorate(make):
        @wraps(make)
        def lines(found=None):
            found = found or values(name)
            return make(found) if found else [missing(name)]

        return lines

    return decorate


def table(head, rows):
    """Lines of a table whose head is given with bars between the columns; `rows` are lists of text."""
    columns = head.split("|")
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def together(tables, found):
    """The lines of several tables, an empty line between them."""
    return "\n\n".join("\n".join(make(found)) for make in tables).splitlines()


def show(lines):
    """Display Markdown lines where a notebook renders them; print them elsewhere."""
    import labkit

    if not labkit.in_notebook():
        print("\n".join(lines))
        return
    from IPython.display import Markdown, display

    display(Markdown("\n".join(lines)))
