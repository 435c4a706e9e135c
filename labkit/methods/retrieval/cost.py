"""What a request costs: milliseconds, tokens and dollars."""

import time


def milliseconds(call, repeats=10, warm=2):
    """The milliseconds of each of `repeats` calls, as a list, after `warm` calls that do not count.

    Waits for the card. For a request in a batch, divide by the number of its rows. Take the median: the mean
    follows whatever else the machine was doing.
    """
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for number in range(warm + repeats):
        wait()
        started = time.perf_counter()
        call()
        wait()
        if number >= warm:
            times.append(1000 * (time.perf_counter() - started))
    return times


def token_counts(tokenizer, prompts, answers):
    """(tokens of each prompt, tokens of each answer) as two lists.

    Prompts are chat messages or strings, as `generate` takes them; an answer's end token counts.
    """
    from labkit.evaluate import _as_text

    texts = [_as_text(prompt, tokenizer) for prompt in prompts]
    asked, said = (
        [len(ids) for ids in tokenizer(part, add_special_tokens=False).input_ids] if part else []
        for part in (texts, list(answers))
    )
    return asked, [count + 1 for count in said]


def dollars_per_thousand(milliseconds, dollars_per_hour):
    """1000 · milliseconds / 3,600,000 · dollars an hour: a thousand requests, one after the other.

    `milliseconds` are those of one request; in a batch, of the batch over its rows. The machine is paid for
    those only: requests that wait for each other, and idle hours, come on top.
    """
    return 1000 * milliseconds / 3_600_000 * dollars_per_hour
