"""Constrained decoding: only tokens that keep the answer inside a JSON Schema may be chosen."""

import json
from itertools import permutations

import torch
from transformers import LogitsProcessor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from labkit.errors import LabkitError


def schema_constraint(tokenizer, schema):
    """A function that makes a fresh SchemaConstraint for a batch; the automaton is built once.

    `schema` is a JSON Schema dict; answers follow its key order and hold no white space. Needs a byte-level
    BPE tokenizer, which the embedded default has.
    """
    from outlines_core import Index, Vocabulary

    index = Index(
        _regex(schema),
        Vocabulary(tokenizer.eos_token_id, _token_bytes(tokenizer)),
    )
    masks = {}
    return lambda: SchemaConstraint(index, tokenizer.eos_token_id, masks)


class SchemaConstraint(LogitsProcessor):
    """Sets the logits of tokens that would leave the schema to minus infinity, row by row."""

    def __init__(self, index, end, masks):
        self.index, self.end, self.masks = index, end, masks
        self.states = None

    def __call__(self, input_ids, scores):
        """Mask `scores` (rows, vocabulary) given `input_ids` (rows, tokens so far)."""
        if self.states is None:
            self.states = [self.index.get_initial_state()] * len(input_ids)
        else:
            chosen = input_ids[:, -1].tolist()
            self.states = [self._next(*pair) for pair in zip(self.states, chosen, strict=True)]
        width = scores.shape[1]  # a model may have more outputs than its tokenizer has tokens
        forbidden = torch.stack([self._forbidden(state, width, scores.device) for state in self.states])
        return scores.masked_fill(forbidden, float("-inf"))

    def _next(self, state, token):
        following = None if token == self.end else self.index.get_next_state(state, token)
        return state if following is None else following  # after the end there is only padding

    def _forbidden(self, state, width, device):
        key = state, width, device
        if key not in self.masks:
            mask = torch.ones(width, dtype=torch.bool, device=device)
            mask[list(self.index.get_allowed_tokens(state) or [])] = False
            if self.index.is_final_state(state):
                mask[self.end] = False
            self.masks[key] = mask
        return self.masks[key]


# Stands in the schema for integers from this minimum on, and is replaced in the regular expression.
FROM = {0: ("NATURALNUMBER", "(0|[1-9][0-9]*)"), 1: ("POSITIVENUMBER", "[1-9][0-9]*")}


def _regex(schema):
    """The regular expression of a schema, with the two rules that outlines_core passes over in silence."""
    from outlines_core.json_schema import build_regex_from_schema

    regex = build_regex_from_schema(json.dumps(_spelled_out(schema)), whitespace_pattern="")
    for name, digits in FROM.values():
        regex = regex.replace(f'"{name}"', digits)
    return regex


def _spelled_out(node):
    """The same schema with unique items as a list of all choices, and a minimum as a stand-in."""
    if isinstance(node, list):
        return [_spelled_out(part) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("uniqueItems") and "enum" in node.get("items", {}):
        choices = node["items"]["enum"]
        counts = range(node.get("minItems", 0), node.get("maxItems", len(choices)) + 1)
        return {"enum": [list(few) for count in counts for few in permutations(choices, count)]}
    if node.get("type") == "integer" and "minimum" in node:
        if node["minimum"] not in FROM:
            raise LabkitError(f"constrained decoding knows the minimum 0 or 1, not {node['minimum']}")
        return {"const": FROM[node["minimum"]][0]}
    return {name: _spelled_out(part) for name, part in node.items()}


def _token_bytes(tokenizer):
    """Bytes of every token that is text, mapped to its ids."""
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    special = set(tokenizer.all_special_ids)
    found = {}
    for token, number in tokenizer.get_vocab().items():
        if number in special or not set(token) <= letters.keys():
            continue
        found.setdefault(bytes(letters[letter] for letter in token), []).append(number)
    if b"{" not in found:
        raise LabkitError("constrained decoding needs a byte-level BPE tokenizer, unlike this model's")
    return found
