"""Dense retrieval: texts and questions as vectors, found by cosine."""

import inspect
from pathlib import Path

import torch

from labkit import env
from labkit.errors import LabkitError
from labkit.train.precision import autocast


class Dense:
    """An index over texts, by vectors.

    `embed` turns a list of texts into a tensor (texts, width). Scores are cosines: rows are made length 1
    here. Raises LabkitError without texts, and where `embed` gives another shape or numbers that are not
    finite.
    """

    def __init__(self, texts, embed):
        if not len(texts):
            raise LabkitError("there is nothing to index: give one text or more")
        self.embed = embed
        self.vectors = self._embedded(texts)

    def search(self, query, k=5):
        """[(index of a text, cosine)] of the k best, best first; of equals the earlier one."""
        return self.search_all([query], k)[0]

    def search_all(self, queries, k=5):
        """`search` for each query, embedded together, which is much quicker than one by one."""
        if not len(queries):
            return []
        cosines = self._embedded(queries) @ self.vectors.T  # (queries, texts)
        best, order = cosines.sort(dim=1, descending=True, stable=True)
        rows = zip(order[:, :k].tolist(), best[:, :k].tolist(), strict=True)
        return [list(zip(numbers, scores, strict=True)) for numbers, scores in rows]

    def _embedded(self, texts):
        vectors = torch.as_tensor(self.embed(list(texts))).float()
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.isfinite().all():
            raise LabkitError(
                f"embed gave {tuple(vectors.shape)} for {len(texts)} texts, or numbers that are not finite: "
                "it must return one finite row for each text"
            )
        return torch.nn.functional.normalize(vectors, dim=1)


def embed_with(model, tokenizer, *, batch_size=32, length=512, precision="fp32"):
    """An `embed` for `Dense`: the mean of a model's last hidden states over a text's tokens, length 1.

    It returns (texts, width) in fp32 on the CPU. No prefix is put before a text, and what comes after
    `length` tokens is not read. A base language model was never trained for this: its states predict the next
    token, and nothing made those of a question and of its answer similar. An encoder trained to retrieve was
    (`load_embedder`). `precision` is fp32, bf16 or fp16. Raises LabkitError for a text without tokens.
    """

    @torch.no_grad()
    def embed(texts):
        rows = tokenizer(list(texts), truncation=True, max_length=length).input_ids if len(texts) else []
        if empty := [number for number, ids in enumerate(rows) if not ids]:
            raise LabkitError(f"text {empty[0]} is empty, so it has no vector. Leave it out")
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        vectors = [None] * len(rows)
        training = model.training
        model.eval()
        try:
            for start in range(0, len(order), batch_size):
                numbers = order[start : start + batch_size]
                means = _means(model, [rows[number] for number in numbers], precision)
                for number, vector in zip(numbers, means, strict=True):
                    vectors[number] = vector
        finally:
            model.train(training)
        return torch.stack(vectors) if vectors else torch.empty(0, model.config.hidden_size)

    return embed


def load_embedder(name, **options):
    """`embed_with` a transformers encoder, by hub id or folder, on the device of `env`.

    `options` go to `embed_with`. Mean pooling and no prefix for all: encoders trained otherwise (E5's
    "query: ", the first token of BGE) lose a little. Raises LabkitError for a name that cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    from labkit.own_model import hub_answers

    folder = Path(name).expanduser()
    where = str(folder) if folder.is_dir() else str(name)
    only_here = folder.is_dir() or not hub_answers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=only_here)
        model = AutoModel.from_pretrained(where, local_files_only=only_here, dtype=torch.float32)
    except Exception as error:  # a folder that holds no model fails in half a dozen ways
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise LabkitError(
            f"{name} could not be loaded as an encoder: {reason[0]}. Name a folder or hub id of one; without "
            "a network only a folder, or what was downloaded before, will do"
        ) from error
    most = getattr(model.config, "max_position_embeddings", None) or 512
    return embed_with(model.to(env.device()).eval(), tokenizer, **{"length": min(512, most), **options})


def _means(model, rows, precision):
    """The mean hidden state of each row of token ids, length 1: (rows, width) in fp32 on the CPU."""
    on = next(model.parameters()).device
    longest = max(map(len, rows))
    # Padded on the right and masked: a token of a causal model does not see what follows it.
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=on)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=on)
    body = _body(model)
    no_cache = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    with autocast(on.type, precision):
        hidden = body(input_ids=ids, attention_mask=mask, **no_cache).last_hidden_state.float()
    real = mask.unsqueeze(-1)  # (batch, seq, 1)
    return torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=1).cpu()


def _body(model):
    """The model without its head; an encoder has none."""
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model.base_model
