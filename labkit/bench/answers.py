"""How a benchmark has a model answer rows: many at once, for on a card launches, not rows, cost the time."""

AT_ONCE = {"cuda": 500, "cpu": 64}  # rows of a batch that answers; only speed and memory depend on it


def scored(model, tokenizer, family, rows):
    """The Scores of the model's answers to rows of a family of tasks."""
    from labkit import score

    batch = AT_ONCE[next(model.parameters()).device.type]
    return score(model, tokenizer, rows, task=family, batch_size=batch, progress=False)
