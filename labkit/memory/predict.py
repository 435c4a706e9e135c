"""What a step takes, by arithmetic alone: the step is played on sizes, without torch, in milliseconds."""

from labkit.memory import machine, ops
from labkit.memory.llama import Model
from labkit.memory.report import CATEGORIES, OUTSIDE_TORCH, Report, Term
from labkit.memory.setting import Setting
from labkit.memory.tape import Tape, Tensor, rounded

ONE = (1, "1")
CHUNK = 1024  # positions whose logits exist at once with the fused loss (labkit.train.loss)
PAGED_FROM = 100_000  # weights: smaller tensors' states are not paged (bitsandbytes: get_state_buffer)
STATES_8BIT_FROM = 4096  # weights: smaller tensors' states stay fp32 (bitsandbytes: min_8bit_size)


def predict(setting, card=machine.H100, **fields):
    """`Report` of one step of a `Setting`, in bytes, at the moment that takes most.

    `setting` may also be a shape, a shape's name, a config or a model, with the fields of `Setting` by name.
    Errors: LabkitError for a setting that cannot be.
    """
    if not isinstance(setting, Setting):
        setting = Setting(setting, **fields)
    tape = Tape()
    tape.mark("load")
    step = _Step(setting, tape, card)
    if setting.method == "inference":
        step.generate()
    else:
        step.train()
    return step.report()


class _Step:
    """One step of a setting on a tape: what it keeps, what it makes, and the report of it."""

    def __init__(self, setting, tape, card=machine.H100):
        self.setting, self.tape, self.card = setting, tape, card
        self.shape = setting.shape
        self.model = Model(setting, tape)
        self.reference = Model(setting, tape, trained=False) if setting.method == "dpo" else None
        self.paged = 0
        self.kept = [tape.new((self.model.rows * setting.seq, "batch x seq"), 8, "token ids")]
        if setting.method != "inference":
            self._states()

    # the optimizer -------------------------------------------------------------------------------------

    def _book(self, elements, item, copies, label, category="optimizer"):
        size = rounded(elements * item)
        self.tape.events.append((size * copies, (category, label, "trained weights", item, size)))

    def _states(self):
        """What the optimizer keeps for every trained weight from its first step on."""
        optimizer = self.setting.optimizer
        for elements, item, copies in self.model.weights.trained:
            if optimizer in ("adamw", "fused"):
                for name in ("first moment", "second moment"):
                    self._book(elements, item, copies, name)
                if optimizer == "fused":
                    self._book(1, 4, copies, "step counts")
            elif optimizer != "sgd":
                eight = "8-bit" in optimizer and elements >= STATES_8BIT_FROM
                paged = "paged" in optimizer and elements >= PAGED_FROM
                width = 1 if eight else 4
                if paged:
                    self.paged += 2 * elements * width * copies
                else:
                    for name in ("first moment", "second moment"):
                        self._book(elements, width, copies, name)
                if eight:
                    for _ in range(2):
                        self._book(-(-elements // 256), 4, copies, "scales of 256 states each")
        if "8-bit" in optimizer:
            for _ in range(2):
                self._book(256, 4, 1, "table of 8-bit codes")

    def _optimize(self):
        """torch's foreach AdamW takes the square roots of all second moments at once, group by dtype."""
        tape = self.tape
        tape.mark("optimizer step")
        if self.setting.optimizer != "adamw":
            return
        for width in (2, 4):
            room = sum(
                rounded(n * item) * copies for n, item, copies in self.model.weights.trained if item == width
            )
            key = ("workspace", "AdamW: square roots of all second moments", "trained weights", width, 0)
            tape.events += [(room, key), (-room, key)]

    # the step ------------------------------------------------------------------------------------------

    def train(self):
        """Forward, backward, optimizer; states and workspaces exist already, as from the second step on."""
        tape, setting = self.tape, self.setting
        for thread in ("forward", "backward"):
            self._book(self.card.workspace, 1, 1, f"cuBLAS workspace, {thread}", "workspace")
        tape.mark("forward end")
        with tape.autocast(2 if setting.precision == "bf16 autocast" else None):
            loss = self._preference() if setting.method == "dpo" else self._loss()
            self.model.forget()
            self._end_autocast()
        tape.mark("backward")
        self._go_back(loss)
        self._optimize()

    def _end_autocast(self):
        """Autocast lets go of its copies; those that backward needs live on."""
        tape = self.tape
        for block, more, _ in self.model.blocks:
            before = len(tape.events)
            for w in _flat(block):
                tape.casts.pop(w, None)
            tape.repeat(tape.account(before, len(tape.events)), more)
        tape.casts.clear()

    def _go_back(self, loss):
        """Backward; where blocks were not played, the block before them stands for them."""
        tape, blocks = self.tape, {number: more for _, more, number in self.model.blocks}
        entered = {}

        def at_block(block):
            entered[block] = len(tape.events)
            if blocks.get(block) and block + 1 in entered:
                tape.repeat(tape.account(entered[block + 1], entered[block]), blocks[block])
            elif isinstance(block, tuple) and blocks.get(block[1] + 1):  # a block's part of a prefix
                before = entered["prefix", block[1] + 1]
                tape.repeat(tape.account(before, entered[block]), blocks[block[1] + 1])

        tape.backward(loss, at_block)

    def _logits(self, model, hidden, dims):
        return ops.linear(self.tape, hidden, model.head, dims, "logits", category="logits and loss")

    def _loss(self):
        """transformers' loss: logits of all tokens, in fp32 too, and their log-softmax."""
        tape, model = self.tape, self.model
        hidden = model.hidden()
        if self.setting.fused_loss:
            return self._fused(hidden)
        logits = self._logits(model, hidden, model.dims("batch", "seq", "vocab"))
        return ops.cross_entropy(tape, logits, ONE, model.row)

    def _fused(self, hidden):
        """labkit.train.loss: the head and the loss for 1,024 positions at a time, computed again backward."""
        tape, model = self.tape, self.model
        width, count = self.shape.hidden, model.rows * (self.setting.seq - 1)
        dims = (count * width, "batch x (seq - 1) x hidden")
        inner = tape.part(hidden, dims, _like_input)
        if model.rows > 1:
            inner = tape.op(dims, inner.item, "last hidden states, flattened", [inner], back=_same)
        inner = tape.op(dims, inner.item, "last hidden states, selected", [inner])

        def loss(part):
            some = part.dims[0] // width
            logits = self._logits(model, part, (some * self.shape.vocab, "positions x vocab"))
            return ops.cross_entropy(tape, logits, (some, "positions"), (some, "positions"))

        if count <= CHUNK:
            return loss(inner)
        losses = []
        for start in range(0, count, CHUNK):
            some = (min(CHUNK, count - start) * width, "positions x hidden")
            losses.append(tape.checkpoint(loss, tape.part(inner, some, _same)))
        del inner, hidden
        return tape.op(ONE, 4, "loss", losses, back=lambda tape, node, g: [g] * len(node.edges))

    def _preference(self):
        """DPO's loss (Rafailov et al. 2023): log-likelihoods of all rows under the policy, then
        under the reference."""
        tape = self.tape
        policy = self._log_likelihood(self.model)
        with tape.no_grad():
            reference = self._log_likelihood(self.reference)
        loss = ops.add(tape, policy, reference, "preference loss")
        del policy, reference
        return loss

    def _log_likelihood(self, model):
        tape = self.tape
        dims = (model.rows * (self.setting.seq - 1) * self.shape.vocab, "batch x (seq - 1) x vocab")
        hidden = model.hidden()
        logits = self._logits(model, hidden, model.dims("batch", "seq", "vocab"))
        del hidden
        return ops.cross_entropy(tape, tape.part(logits, dims, _like_logits), ONE, model.row)

    def generate(self):
        """The prompt, then the last decoded token, whose cache is the longest."""
        tape, model, setting = self.tape, self.model, self.setting
        self._book(self.card.workspace, 1, 1, "cuBLAS workspace", "workspace")
        tape.mark("forward end")
        with tape.no_grad(), tape.autocast(2 if setting.precision == "bf16 autocast" else None):
            out = self._generated(model)
            if setting.new_tokens:
                del out
                model.now, model.past = 1, setting.seq + setting.new_tokens - 1
                self._lengthen()
                out = self._generated(model)
        del out

    def _generated(self, model):
        hidden = model.hidden(keep_cache=True)
        return self._logits(model, hidden, model.dims("batch", "1", "vocab"))

    def _lengthen(self):
        """Caches as long as before the last token."""
        tape, model = self.tape, self.model
        dims = (model.rows * model.past * model.shape.key, "batch x keys x kv_heads x head_dim")
        for _, more, number in model.blocks:
            before = len(tape.events)
            items = [x.item for x in model.cache[number]]
            model.cache[number] = None
            model.cache[number] = [Tensor(tape, dims, item, "activations", "KV cache") for item in items]
            tape.repeat(tape.account(before, len(tape.events)), more)

    # the answer ----------------------------------------------------------------------------------------

    def report(self):
        """The `Report` at the tape's peak."""
        peak, moment, living = self.tape.peak()
        categories, terms = dict.fromkeys(CATEGORIES, 0), []
        for (category, label, text, item, _), size in living.items():
            categories[category] += size
            terms.append(Term(category, label, size, f"{text} x {item} bytes"))
        categories["optimizer paged"], categories["context"] = self.paged, self.card.context
        terms.append(Term("optimizer paged", "states in managed memory", self.paged, "trained weights"))
        terms.append(Term("context", self.card.name, self.card.context))
        setting, model = self.setting, self.model
        positions = model.rows * (1 if setting.method == "inference" else model.now)
        logits = 4 * self.shape.vocab * (min(positions, CHUNK) if setting.fused_loss else positions)
        took = machine.reserved(peak, logits, categories["activations"], categories["gradients"])
        outside = sum(categories[name] for name in OUTSIDE_TORCH)
        return Report(
            categories={name: size for name, size in categories.items() if size}, peak_allocated=peak,
            peak_reserved=took, process=took + outside, moment=moment, terms=terms, engine="predict",
        )  # fmt: skip


def _same(tape, node, g):
    return [g]


def _like_input(tape, node, g):
    return [tape.new(node.edges[0][1], node.edges[0][2], ops.GRAD)]


def _like_logits(tape, node, g):
    return [tape.new(node.edges[0][1], node.edges[0][2], "gradient of the logits", "logits and loss")]


def _flat(parts):
    """All tensors in nested dicts and lists."""
    if isinstance(parts, Tensor):
        yield parts
    else:
        for part in parts.values() if isinstance(parts, dict) else parts:
            yield from _flat(part)
