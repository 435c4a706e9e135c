"""What an engine answers: bytes by category at the moment the step takes most, and the sums over them."""

from dataclasses import asdict, dataclass, field

# Outside torch's peak: "optimizer paged" is managed memory, and "context" holds other libraries' memory too.
CATEGORIES = (
    "weights", "gradients", "optimizer", "optimizer paged", "casts", "activations", "logits and loss",
    "workspace", "context",
)  # fmt: skip
OUTSIDE_TORCH = ("optimizer paged", "context")
MOMENTS = ("load", "forward end", "backward", "optimizer step")


@dataclass(frozen=True)
class Term:
    """One summand: which category it belongs to, what it is, its bytes, and the formula it came from."""

    category: str
    name: str
    bytes: int
    formula: str = ""


@dataclass
class Report:
    """Bytes one step takes, at its peak.

    categories      bytes by category at the peak moment; a category that is missing is 0
    peak_allocated  torch.cuda.max_memory_allocated: all categories but those in OUTSIDE_TORCH
    peak_reserved   torch.cuda.max_memory_reserved: what torch's allocator took from the card
    process         the whole process on the card: reserved, CUDA context, paged optimizer states
    moment          one of MOMENTS
    terms           the summands, where the engine knows them
    engine          predict, trace or measure
    """

    categories: dict
    peak_allocated: int
    peak_reserved: int
    process: int
    moment: str
    terms: list = field(default_factory=list)
    engine: str = ""

    def explain(self):
        """Lines of text: each category in GB (1e9 bytes), and beneath it its terms, largest first."""
        lines = [f"peak at the {self.moment}" + (f" ({self.engine})" if self.engine else "")]
        for category in CATEGORIES:
            total = self.categories.get(category, 0)
            if total:
                lines.append(f"{category:16s} {total / 1e9:10.3f} GB")
                mine = [term for term in self.terms if term.category == category and term.bytes]
                for term in sorted(mine, key=lambda term: -term.bytes):
                    lines.append(
                        f"  {term.name}: {term.bytes / 1e9:.3f} GB"
                        + (f" = {term.formula}" * bool(term.formula))
                    )
        for name in ("peak_allocated", "peak_reserved", "process"):
            lines.append(f"{name.replace('_', ' '):16s} {getattr(self, name) / 1e9:10.3f} GB")
        return lines

    def to_dict(self):
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data):
        """The report that `to_dict` wrote."""
        data = dict(data)
        data["terms"] = [Term(**term) for term in data.get("terms", [])]
        return cls(**data)
