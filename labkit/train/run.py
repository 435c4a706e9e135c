"""What a training run gives back."""

from dataclasses import dataclass, field


@dataclass
class Run:
    """What one call of `fit` did.

    `losses` has one mean per step over weighted tokens, in nats; `tokens` counts non-padding
    tokens; `peak_bytes` is CUDA's peak allocation, or the process's peak on a CPU; `path` says how
    steps were taken: `plain`, or `CUDA graph`, with `compiled blocks` where blocks were compiled.
    `interrupted` says that a learner stopped the cell.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    peak_bytes: int = 0
    trainable: int = 0
    precision: str = ""
    path: str = "plain"
    stopped_early: bool = False
    interrupted: bool = False

    @property
    def steps(self):
        """Steps taken."""
        return len(self.losses)

    @property
    def tokens_per_second(self):
        """Non-padding tokens a second, validation and checkpoints included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __str__(self):
        how = self.precision if self.path == "plain" else f"{self.precision}, {self.path}"
        return (
            f"{self.steps} steps, {self.tokens:,} tokens in {self.seconds:.0f} s "
            f"({self.tokens_per_second:,.0f} tokens/s, {how}), "
            f"{self.trainable:,} trainable weights, peak {self.peak_bytes / 1e9:.1f} GB"
        )
