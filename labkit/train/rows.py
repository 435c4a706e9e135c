"""From rows of text to token ids with a loss weight each."""

from dataclasses import dataclass

from labkit.errors import LabkitError


@dataclass(frozen=True)
class Encoded:
    """One training row: token ids and the loss weight of each as a target, equally long."""

    ids: list[int]
    weights: list[float]

    def __len__(self):
        return len(self.ids)


def encode(row, tokenizer, prompt_loss_weight=0.0):
    """Tokenize a prompt and completion row, as trl's SFTTrainer does.

    `row["prompt"]` and `row["completion"]` are both lists of messages or both strings. Answer
    tokens, the end token included, weigh 1; prompt tokens weigh `prompt_loss_weight`.
    """
    return _encoded([row], tokenizer, prompt_loss_weight)[0]


def encode_all(rows, tokenizer, length, prompt_loss_weight=0.0, prompt_ids=()):
    """Encode every row; raise LabkitError naming the first that cannot be trained on.

    `length` is the packed row length in tokens, which no row may exceed. `prompt_ids`, the words of a soft
    prompt, come before each row, and count neither in its length nor in the loss.
    """
    if isinstance(rows, dict):  # a DatasetDict is one
        names = ", ".join(map(repr, rows))
        raise LabkitError(f"these are the splits {names}, not rows: pass one of them, as in data['train']")
    if isinstance(rows, str):
        raise LabkitError(f"{rows!r} is no list of rows: load it first, with labkit.load({rows!r})['train']")
    rows = rows.to_list() if hasattr(rows, "to_list") else list(rows)
    if not rows:
        raise LabkitError("there are no rows to train on: `rows` is empty")
    faults = (number for number, row in enumerate(rows) if _fault(row))
    sound = next(faults, len(rows))  # rows before the first fault may have a fault that only tokens show
    encoded = _encoded(rows[:sound], tokenizer, prompt_loss_weight) if sound else []
    soft, nothing = list(prompt_ids), [0.0] * len(prompt_ids)
    encoded = [Encoded(soft + one.ids, nothing + one.weights) for one in encoded]
    for number, (row, one) in enumerate(zip(rows, encoded, strict=False)):
        if sum(one.weights[1:]) == 0 or _says_nothing(row["completion"]):
            raise LabkitError(
                f"row {number} has no answer tokens to learn from: its completion is {row['completion']!r}"
            )
        if (size := len(one) - len(soft)) > length:
            raise LabkitError(
                f"row {number} has {size} tokens, more than the packed row length of {length}. "
                f"Pass length={-(-size // 64) * 64} to fit, or shorten or drop the row"
            )
    if sound < len(rows):
        raise LabkitError(f"row {sound} {_fault(rows[sound])}")
    return encoded


def _fault(row):
    """What is wrong with a row before it is tokenized, and what to do; empty if nothing is."""
    missing = [name for name in ("prompt", "completion") if not row.get(name)]
    if missing:
        return (
            f"has no {' and no '.join(missing)}. Every training row needs both, "
            "as lists of messages or as strings: remove the row or fill it in"
        )
    if isinstance(row["prompt"], str) != isinstance(row["completion"], str):
        return (
            "mixes a string and messages: make its prompt and its completion both "
            "lists of messages, or both strings"
        )
    return ""


def _encoded(rows, tokenizer, prompt_loss_weight):
    """The Encoded of each row, tokenized all at once, which is several times faster than one by one."""
    starts, wholes = [], []
    for row in rows:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            end = "" if completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
            starts.append((prompt, True))
            wholes.append((prompt + completion + end, True))
        else:  # the template writes its special tokens itself
            text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            starts.append((text, False))
            text = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
            wholes.append((text, False))
    encoded = []
    tokens = (_tokens(texts, tokenizer) for texts in (starts, wholes))
    for start, whole in zip(*tokens, strict=True):
        # A merge across the border would put answer characters into the last prompt token.
        border = len(start) if whole[: len(start)] == start else _common(start, whole)
        encoded.append(Encoded(whole, [prompt_loss_weight] * border + [1.0] * (len(whole) - border)))
    return encoded


def _tokens(texts, tokenizer):
    """Token ids of (text, whether the tokenizer adds its special tokens) pairs, in order."""
    ids = [None] * len(texts)
    for special in (True, False):
        places = [place for place, (_, adds) in enumerate(texts) if adds == special]
        if places:
            some = tokenizer([texts[place][0] for place in places], add_special_tokens=special).input_ids
            for place, found in zip(places, some, strict=True):
                ids[place] = found
    return ids


def _says_nothing(completion):
    """Are all messages of this completion empty? Their end token alone is no answer."""
    if isinstance(completion, str):
        return False
    return not any(message.get("content") or message.get("tool_calls") for message in completion)


def _common(left, right):
    """Length of the common start of two lists."""
    for count, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return count
    return min(len(left), len(right))
