"""The tables of `bench data`. Each takes the record's values, or reads them.

A record has its names sorted as text, so every table says its own order.
"""


from labkit.bench.data_values import BAND, COT, EPOCHS, MASK, MIX, PILOT, QUALITY
from labkit.bench.markdown import measured, table, together

NAME = "data"
ROWS = {
    "counterfactual": "counterfactual: each passage beside its twin",
    "balanced": "balanced: as many he as she",
    "skewed": "skewed: nine of ten as stereotype has it",
    "voice": "replies of the shop: neither jobs nor pronouns",
}
WAYS = {"replace": "replace", "accumulate": "accumulate", "real10": "replace, 10% real"}
SPEEDS = {"packed": "packed", "stepped": "packed, no CUDA graph", "padded": "padded"}


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (quality_table, noise_table, mix_table, pilot_table, returns_table, cot_table, bias_table,
              collapse_table, mask_table)  # fmt: skip
    return together(tables, found)


@measured(NAME)
def quality_table(found):
    """Markdown lines: clean or noisy, diverse or uniform, 1,000 rows or 10,000."""
    rows = [[name, _percent(each), _range(each)] for name, each in _in(QUALITY, found["quality"])]
    return [
        *table("training rows|exact match, test|by seed", rows),
        "",
        f"{_budget(found)}, {_seeds(found)}. Noisy: 30% of the rows damaged (wrong label, wrong field, cut, "
        "off topic). Uniform: a tenth of the training phrasings, less those kept out.",
    ]


@measured(NAME)
def noise_table(found):
    """Markdown lines: 10,000 diverse rows by share of damaged ones, beside 1,000 clean ones."""
    rows = [[f"10,000, {share}% damaged", _percent(each), _range(each)]
            for share, each in _in(sorted(found["noise"], key=int), found["noise"])]  # fmt: skip
    clean = found["quality"]["clean diverse 1k"]
    rows.append(["1,000, clean", _percent(clean), _range(clean)])
    one, *flips = ("never" if one is None else f"{one:.0%}"
                   for one in (found["flips at"], *found["flips at by seed"]))  # fmt: skip
    return [
        *table("diverse rows|exact match, test|by seed", rows),
        "",
        f"{_budget(found)}. 10,000 rows fall below 1,000 clean ones at this share of damage, by means of "
        f"seeds: {one}; each seed's own line, which chance bends, crosses first at: {', '.join(flips)}.",
    ]


@measured(NAME)
def mix_table(found):
    """Markdown lines: rows of tickets with rows of other families mixed in."""
    rows = [[name, f"{found['mix steps'][name][0]}", _percent(each), _range(each)]
            for name, each in _in(MIX | EPOCHS, found["mix"])]  # fmt: skip
    return [
        *table("1,000 rows of tickets and|steps|exact match, test|by seed", rows),
        "",
        f"{_seeds(found)}. Others: sql, handbook, voice, jobs and arithmetic, equally many. In equal steps a "
        "mix sees the task's rows less often; in equal epochs as often, with more steps. Worst of the equal "
        f"steps on phrasings kept from training: {found['worst mix']}.",
    ]


@measured(NAME)
def pilot_table(found):
    """Markdown lines: what 50 and 100 rows gain on a task they can help, and on one they cannot."""
    says = {"helps": "tickets: form", "cannot": "handbook: facts that training withholds"}
    counts = sorted(found["pilot"]["helps"], key=int)
    rows = [[says[name], *(_percent(each) for _, each in _in(counts, by_rows))]
            for name, by_rows in _in(PILOT, found["pilot"])]  # fmt: skip
    return [
        *table("|".join(["task", *(f"{count} rows" for count in counts)]), rows),
        "",
        f"Exact match on test rows, {found['settings']['few']} steps, {_seeds(found)}. The handbook's "
        "training rows are those whose answers are out of date: none teaches an answer of the test. Rates "
        "were chosen on rows that a pilot would not have (several hundred), for 100 rows; 50 take the same.",
    ]


@measured(NAME)
def returns_table(found):
    """Markdown lines: the learning curve of LoRA and of full finetuning, and their difference."""
    lora, full, rows, before = found["returns"]["lora"], found["returns"]["full"], [], None
    for count, each in _in(sorted(lora, key=int), lora):
        gain = f"{100 * (_mean(each) - before):+.1f}" if before is not None else ""
        gap = 100 * (_mean(each) - _mean(full[count]))
        rows.append([f"{int(count):,}", _percent(each), gain, _percent(full[count]), f"{gap:+.1f}"])
        before = _mean(each)
    gains = ", ".join(f"{100 * one:+.1f}" for one in found["first gain minus last"])
    return [
        *table("rows|LoRA r=16|gain of doubling|full|LoRA minus full", rows),
        "",
        f"Exact match on test rows, {_budget(found)}, {_seeds(found)}; each method at its own best rate for "
        f"each number of rows. LoRA's first gain minus its last, points by seed: {gains}.",
    ]


@measured(NAME)
def cot_table(found):
    """Markdown lines: arithmetic with working, without, and with dots in its place."""
    cot = found["cot"]
    rows = [[name, _percent(cot[name]), _range(cot[name]),
             f"{_mean(cot[name]) / _mean(cot['answer only']):.2f}" if any(cot["answer only"]) else ""]
            for name in reversed(COT)]  # fmt: skip
    seen = ", ".join(f"{digits} digits {share:.1%}" for digits, share in sorted(cot["judged"].items()))
    return [
        *table("4,000 rows with|right, test|by seed|over answer only", rows),
        "",
        f"Numbers of {cot['digits']} digits, {_budget(found)}, {_seeds(found)}. The length was chosen by "
        f"answer-only rows of phrasings kept from training: {seen}. With answers only the test score lies "
        f"{'in' if BAND[0] <= _mean(cot['answer only']) <= BAND[1] else 'outside'} the {BAND[0]:.0%} to "
        f"{BAND[1]:.0%} that the claim is about. At equal tokens, rows that are longer are seen less often.",
    ]


@measured(NAME)
def bias_table(found):
    """Markdown lines: he/she log-odds of unseen jobs and sentences, and perplexity, by training rows."""
    bias, rows = found["bias"], []
    for which, one in _in(["before", *ROWS], bias):
        cells = [one[key] for key in ("log-odds", "log-odds, bare text", "signed", "spread")]
        cells = [f"{_mean(cell) if isinstance(cell, list) else cell:.2f}" for cell in cells]
        change = f"{_mean(one['perplexity ratio']):.3f}" if "perplexity ratio" in one else "1"
        rows.append([ROWS.get(which, "(the base)"), *cells, change])
    ratios = ", ".join(f"{one:.2f}" for one in found["log-odds ratio"])
    head = "training rows|absolute log-odds|the same, bare text|signed mean|spread of jobs|perplexity ratio"
    return [
        *table(head, rows),
        "",
        f"LoRA r=16 at {found['rates']['bias']['best']:g}, {found['settings']['few']} steps, "
        f"{_seeds(found)}. Signed: above 0 for he. Spread: standard deviation of the jobs' signed log-odds. "
        f"Counterfactual rows, absolute log-odds after over before, by seed: {ratios}.",
    ]


@measured(NAME)
def collapse_table(found):
    """Markdown lines: loss on real passages by generation, as mean of the seeds."""
    rows = []
    for way, one in _in(WAYS, found["collapse"]):
        losses = [f"{_mean(each):.3f}" for each in zip(*one["losses"], strict=True)]
        rise = ", ".join(f"{each:+.3f}" for each in found["rise"][way])
        rows.append([WAYS[way], *losses, rise, _percent([each[-1] for each in one["distinct"]])])
    count = found["settings"]["generations"]
    ratios = ", ".join("none" if one is None else f"{one:.2f}" for one in found["rise ratio"])
    head = ["training rows", "real", *(f"{place + 1}" for place in range(count)), "rise", "distinct at last"]
    return [
        *table("|".join(head), rows),
        "",
        f"Nats per token of real passages, mean of {_seeds(found)}; {found['settings']['passages']:,} rows a "
        f"generation, {found['settings']['few']} steps, sampled at temperature 1. Rise: last minus first, by "
        "seed. Distinct: share of different passages among the last ones sampled. Rise with 10% real over "
        f"rise with none, by seed: {ratios}.",
    ]


@measured(NAME)
def mask_table(found):
    """Markdown lines: loss on the prompt too, and rows packed or padded; tokens a second."""
    rows = [[name, _percent(each), _range(each)] for name, each in _in(MASK, found["mask"])]
    speeds = [[SPEEDS[how], f"{one['tokens/s']:,.0f}", f"{one['training seconds']:.1f} s"]
              for how, one in _in(SPEEDS, found["speed"])]  # fmt: skip
    return [
        *table("1,000 rows, loss on|exact match, test|by seed", rows),
        "",
        *table("batches|tokens/s|a training", speeds),
        "",
        f"{_budget(found)}, {_seeds(found)}; padded: as many rows a step as packing has. Speed: tokens "
        "that are not padding, one run each, the card to itself, start-up counted.",
    ]


def _in(order, found):
    """(name, what was found) in this order."""
    return [(name, found[name]) for name in order]


def _budget(found):
    asked = found["settings"]
    return f"LoRA r=16 unless said, {asked['steps']} steps of {asked['batch']} x {asked['length']} tokens"


def _seeds(found):
    count = len(found["settings"]["seeds"])
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _percent(shares):
    return f"{_mean(shares):.1%}"


def _range(shares):
    return ", ".join(f"{share:.1%}" for share in shares)


def _mean(numbers):
    return sum(numbers) / len(numbers)
