"""Sentence frames of the sql family: how each kind of question is asked.

The lines above "---" serve train and validation, those below only test. `{np}` is a noun phrase in the plural
("gold customers from Cork"), `{Np}` the same with a capital, `{cols}` the wanted columns in the plural,
`{col}` in the singular, `{agg}` "average price", `{dim}`, `{dims}` and `{by}` what is grouped by, `{value}`
what is summed up, `{k}` a number.
"""

from __future__ import annotations

_FRAMES = {
    "list": """
List the {cols} of {np}.
Give me the {cols} of all {np}.
Show the {cols} of {np}.
What are the {cols} of {np}?
I need the {cols} of all {np}.
Find all {np} and return their {cols}.
For all {np}, show the {cols}.
Get the {cols} of {np}.
Which {np} are there? Give their {cols}.
Show me all {np} with their {cols}.
---
Could you pull up the {cols} of {np}?
I am looking for {np}: the {cols}, please.
Write down the {cols} for each of the {np}.
We want to see all {np}, just their {cols}.
Who or what are the {np}? The {cols} will do.
{Np}: please look up their {cols}.
""",
    "either": """
List the {cols} of {np}.
Give me the {cols} of all {np}.
Show the {cols} of {np}.
I need the {cols} of all {np}.
Find all {np} and return their {cols}.
Get the {cols} of {np}.
---
Could you pull up the {cols} of {np}?
I am looking for {np}: the {cols}, please.
We want to see all {np}, just their {cols}.
{Np}: please look up their {cols}.
""",
    "count": """
How many {np} are there?
How many {np} do we have?
Count the {np}.
What is the number of {np}?
Give me the number of {np}.
Tell me how many {np} there are.
I need the count of {np}.
How many {np} can you find?
Find the number of {np}.
---
What does the tally of {np} come to?
Could you count up all {np}?
{Np}: how many?
How large is the group of {np}?
I wonder how many {np} exist.
Someone asked for the total number of {np}.
""",
    "aggregate": """
What is the {agg} of {np}?
Give me the {agg} of {np}.
Compute the {agg} of all {np}.
Find the {agg} of {np}.
For {np}, what is the {agg}?
Tell me the {agg} of {np}.
I need the {agg} of all {np}.
Show the {agg} of {np}.
---
Work out the {agg} over all {np}.
Looking only at {np}, what does the {agg} come to?
We want to know the {agg} among {np}.
{Np}: what is the {agg}?
Could you determine the {agg} across {np}?
""",
    "lookup": """
What {is} the {cols} of {x}?
Give me the {cols} of {x}.
Show the {cols} of {x}.
Tell me the {cols} of {x}.
Find the {cols} of {x}.
I need the {cols} of {x}.
For {x}, show the {cols}.
---
Could you look up the {cols} for {x}?
{X}: please state the {cols}.
What do we have on file as the {cols} of {x}?
Someone asked about the {cols} of {x}.
As for {x}, let me know the {cols}.
""",
    "distinct": """
List the different {cols} of {np}.
Which different {cols} do {np} have?
Show the distinct {cols} of {np}.
Give me each of the {cols} of {np} once.
What are the different {cols} of {np}?
Show the {cols} of {np} without duplicates.
---
Name the {cols} that occur among {np}, each only once.
What distinct {cols} do we find among {np}?
{Np}: which {cols} appear there, with no repeats?
Could you collect the {cols} of {np}, leaving out repetitions?
Taking {np}, which {cols} come up at least once?
""",
    "count distinct": """
How many different {cols} do {np} have?
Count the different {cols} of {np}.
How many distinct {cols} are there among {np}?
What is the number of different {cols} of {np}?
Give me the number of distinct {cols} of {np}.
---
Over how many different {cols} are {np} spread?
{Np}: how many {cols} appear there, counting each once?
Could you count the {cols} found among {np}, without repeats?
Work out the number of separate {cols} among {np}.
""",
    "sorted": """
List the {cols} of {np}, {order}.
Give me the {cols} of all {np}, {order}.
Show the {cols} of {np}, {order}.
I need the {cols} of {np}, {order}.
Show all {np} with their {cols}, {order}.
Find {np} and return their {cols}, {order}.
---
Could you pull up the {cols} of {np}, {order}?
Put {np} in a list, {order}, and show their {cols}.
{Np}: I want their {cols}, {order}.
Please arrange {np} {order}; only the {cols} matter.
Hand me the {cols} for {np}, {order}.
""",
    "top": """
Give me the {cols} of the {top}.
What are the {cols} of the {top}?
List the {cols} of the {top}.
Show the {cols} of the {top}.
Find the {top} and return their {cols}.
I need the {cols} of the {top}.
---
Could you pull up the {cols} of the {top}?
Which are the {top}? Their {cols}, please.
Rank them for me: the {top}, just the {cols}.
We are after the {top}; show the {cols}.
Could you work out the {top}, stating their {cols}?
""",
    "extreme": """
Which of the {np} has the {high} {what}? Give the {col}.
What is the {col} of the one with the {high} {what} among {np}?
Show the {col} of the one with the {high} {what} of all {np}.
Among {np}, find the one with the {high} {what} and give the {col}.
Of all {np}, which one has the {high} {what}? Show the {col}.
---
Take all {np} and pick the one whose {what} is the {high}; state the {col}.
Whose {what} is the {high} among {np}? The {col}, please.
Looking through {np}, where do we find the {high} {what}? Return the {col}.
Hand me the {col} for whichever of the {np} has the {high} {what}.
""",
    "group": """
For each {by}, give the {dim} and the number of {np}.
Show every {dim} with the number of {np}.
List each {dim} and how many {np} there are.
Count the {np} per {by}; show the {dim} and the count.
Give the {dim} and the count for {np}, grouped by {by}.
How many {np} are there in each {by}? Give the {dim} and the number.
Group {np} by {by} and show the {dim} and the count.
---
Break down the number of {np} by {by}: first the {dim}, then the number.
{Np}: list the {dims}, each followed by how many there are.
I want a table with two columns, {dim} and count of {np}.
How do {np} spread over the {dims}? Return {dim} and count.
Per {by}, tally up {np}: {dim}, then count.
""",
    "group aggregate": """
For each {by}, give the {dim} and the {agg} of {np}.
Show every {dim} with the {agg} of {np}.
List each {dim} and the {agg} of {np}.
Give the {dim} and the {agg} for {np}, grouped by {by}.
What is the {agg} of {np} in each {by}? Give the {dim} first.
Group {np} by {by} and show the {dim} and the {agg}.
---
Break down the {agg} of {np} by {by}: first the {dim}, then the value.
{Np}: list the {dims}, each followed by the {agg}.
I want a table with {dim} in front and {agg} behind, over {np}.
Split {np} by {by} and work out the {agg}; {dim} comes first.
""",
    "having": """
Which {dims} have {q} {np}?
List the {dims} that have {q} {np}.
Show the {dims} with {q} {np}.
Give me all {dims} with {q} {np}.
Find the {dims} that have {q} {np}.
---
For which {dims} do we find {q} {np}? Just the {dims}.
Name all {dims} that reach {q} {np}.
I only want the {dims} where there are {q} {np}.
Tell me in short for which {dims} we count {q} {np}.
""",
    "having count": """
Which {dims} have {q} {np}? Show the {dim} and the number.
List the {dims} that have {q} {np}, with the number.
Show the {dims} with {q} {np} and the count of each.
Give me all {dims} with {q} {np}, and how many each has.
---
For which {dims} do we find {q} {np}? State the {dim}, then the number.
Name all {dims} that reach {q} {np}, each with its count.
I want the {dims} where there are {q} {np}, along with how many.
""",
    "top related": """
Give me the {cols} of the {k} {np} with {most}.
Which {k} {np} have {most}? Give their {cols}.
List the {cols} of the {k} {np} with {most}.
What are the {cols} of the {k} {np} with {most}?
Show the {cols} of the {k} {np} with {most}.
Find the {k} {np} with {most} and return their {cols}.
---
Could you pull up the {cols} of the {k} {np} that have {most}?
Who or what are the top {k} among {np}, going by {most}? The {cols} will do.
Rank {np} by {most} and return the {cols} of the first {k}.
Sorting {np} by {most}, whose {cols} make up the first {k}?
""",
    "top related value": """
Give me the {k} {np} with {most}: {cols} and {value}.
Which {k} {np} have {most}? Give their {cols} and the {value}.
List the {k} {np} with {most}; show {cols} and {value}.
Find the {k} {np} with {most} and return their {cols} and the {value}.
---
Could you pull up the {k} {np} that have {most}, stating {cols} and {value}?
Rank {np} by {most} and return the {cols} of the first {k}, each with the {value}.
Sorting {np} by {most}, what are {cols} and {value} of the first {k}?
""",
    "having related": """
Give me the {cols} of {np} with {more}.
Which {np} have {more}? Give their {cols}.
List the {cols} of {np} with {more}.
What are the {cols} of {np} with {more}?
Show the {cols} of all {np} with {more}.
Find {np} with {more} and return their {cols}.
---
Could you pull up the {cols} of {np} that have {more}?
We want to see all {np} that reach {more}, just their {cols}.
{Np}: which of them have {more}? The {cols} will do.
Hand me the {cols} for all {np} that can show {more}.
""",
    "sales": """
What is the {what}{of}{within}?
Give me the {what}{of}{within}.
Compute the {what}{of}{within}.
Find the {what}{of}{within}.
Tell me the {what}{of}{within}.
I need the {what}{of}{within}.
Show the {what}{of}{within}.
---
Work out the {what}{of}{within}.
What does the {what}{of}{within} come to?
Could you determine the {what}{of}{within}?
We want to know how high the {what}{of}{within} is.
""",
    "sales per": """
For each {by}, give the {dim} and the {what}{of}{within}.
Show every {dim} with the {what}{of}{within}.
List each {dim} and the {what}{of}{within}.
Give the {dim} and the {what}{of}{within}, grouped by {by}.
What is the {what}{of}{within} for each {by}? Give the {dim} first.
---
Break down the {what}{of}{within} by {by}: first the {dim}, then the value.
I want a table with two columns, {dim} and {what}{of}{within}.
Split the {what}{of}{within} over the {dims}; return {dim} and value.
Per {by}, work out the {what}{of}{within}: {dim}, then value.
""",
    "average per": """
What is the average {what} {per} for {np}?
Give me the average {what} {per}, counting only {np}.
Compute the average {what} {per} for {np}.
On average, what is the {what} {per} for {np}?
Find the average {what} {per}, counting only {np}.
---
Taking {np} alone, what does the mean {what} {per} come to?
Work out the mean {what} {per}, looking only at {np}.
{Np}: how high is the mean {what} {per}?
Someone asked for the mean {what} {per} among {np}.
""",
}


def _read() -> dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]:
    out = {}
    for kind, text in _FRAMES.items():
        train, test = (part.strip().splitlines() for part in text.split("---"))
        name = kind.replace(" ", "_")
        out[kind] = ([(f"{name}-{i:02d}", line) for i, line in enumerate(train)],
                     [(f"{name}-x{i:02d}", line) for i, line in enumerate(test)])
    return out


FRAMES = _read()
