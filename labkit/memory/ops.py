"""The operations of a Llama block as torch computes them: what each makes, what it keeps for backward.

Written against `labkit.memory.tape`: variables live as long as they do in torch's and transformers' own code.
`item` is bytes an element: 4 for fp32, 2 for bf16. A function for backward takes (tape, node, gradient),
gives one gradient for each input, and must not hold tensors.
"""

GRAD = "gradients on their way"


def add(tape, a, b, label):
    """a + b keeps nothing; the same gradient goes to both."""
    return tape.op(a.dims, max(a.item, b.item), label, [a, b], back=lambda tape, node, g: [g, g])


def multiply(tape, a, b, label):
    """a * b keeps each factor that the other's gradient needs; a factor spread over rows is summed later."""
    dims, item = max(a.dims, b.dims), max(a.item, b.item)

    def back(tape, node, g):
        return [edge and tape.new(dims, item, GRAD) for edge in node.edges]

    return tape.op(dims, item, label, [a, b], [x for x, other in ((a, b), (b, a)) if other.needs], back)


def scale(tape, a, label):
    """a * number keeps nothing."""
    return tape.op(a.dims, a.item, label, [a])


def passed(tape, a, dims, label):
    """A small result of `a` whose gradient passes through as it is (a + number, say)."""
    return tape.op(dims, a.item, label, [a], back=lambda tape, node, g: [g])


def linear(tape, x, w, dims, label, bias=None, category="activations"):
    """x @ w.T: keeps x if w is trained, and w (under autocast its 16-bit copy) if x wants a gradient."""
    if tape.compute is not None:
        x = tape.cast(x, tape.compute, f"{label}: input in 16 bits")
    inputs = [x, tape.weight(w)] + ([] if bias is None else [tape.weight(bias)])
    saved = [a for a, other in ((x, inputs[1]), (inputs[1], x)) if other.needs]
    item = x.item

    def back(tape, node, g):
        # torch makes the weight's gradient first; the model sees views of both.
        grads = [edge and tape.new(edge[1], item, GRAD) for edge in reversed(node.edges)][::-1]
        for grad in grads:
            if grad is not None:
                grad.view = True
        return grads

    return tape.op(dims, item, label, inputs, saved, back, category)


def rms_norm(tape, x, w, row):
    """x / rms(x) * w, inside in fp32: keeps x in fp32 (a copy if x is 16-bit), a number a row, and, if w is
    trained, the normalised x."""
    item, h = x.item, tape.cast(x, 4, "norm: input in fp32")
    dims = h.dims

    def square_back(tape, node, g):
        # grad * (2 * x.pow(1)): three tensors for a moment
        power = tape.new(dims, 4, GRAD)
        double = tape.new(dims, 4, GRAD)
        out = tape.new(dims, 4, GRAD)
        del power, double
        return [out]

    def mean(squares):
        return tape.op(row, 4, "norm: mean square", [squares], back=lambda t, node, g: [t.new(dims, 4, GRAD)])

    variance = mean(tape.op(dims, 4, "norm: squares", [h], [h], square_back))
    root = passed(tape, passed(tape, variance, row, "norm: mean square"), row, "norm: 1 / rms")
    h = multiply(tape, h, root, "norm: normalised x")
    del root
    return multiply(tape, w, tape.cast(h, item, "norm: normalised x in 16 bits"), "norm: output")


def rotate(tape, x, cos, sin):
    """x * cos + rotate_half(x) * sin keeps cos and sin, which all blocks share. With fp32 cos and sin, as
    under autocast, the result is fp32."""
    dims, item = x.dims, x.item
    half = (dims[0] // 2, f"{dims[1]} / 2")

    def whole(tape, node, g):
        return [edge and tape.new(dims, item, GRAD) for edge in node.edges]

    def rotate_half(x):
        minus = tape.op(half, item, "rotary", [x], back=whole)
        return tape.op(dims, item, "rotary", [minus, x], back=lambda t, n, g: [g, t.new(dims, item, GRAD)])

    return add(
        tape, multiply(tape, x, cos, "rotary"), multiply(tape, rotate_half(x), sin, "rotary"), "q, k rotated"
    )


def copied_back(tape, x):
    """`x` seen through a transposition whose gradient has to be copied into order."""
    dims, item = x.dims, x.item
    return tape.through(x, lambda tape, node, g: [tape.new(dims, item, GRAD)])


def silu(tape, x, label):
    """x * sigmoid(x) keeps x."""
    return tape.op(x.dims, x.item, label, [x], [x])


def fused_attention(tape, q, k, v, queries, room, mask=None):
    """A fused kernel keeps q, k, v, its result and one fp32 a query (the log of the sum of exponentials);
    scores never exist. `room` is what its backward kernel takes beside the results."""
    dims = q.dims
    if tape.compute is not None:
        q, k, v = (tape.cast(x, tape.compute, "q, k in 16 bits") for x in (q, k, v))
    item = q.item
    saved = [q, k, v, tape.new(queries, 4, "attention: log of sums")]
    if mask is not None:  # true and false made into numbers to add, for every row and block anew
        saved.append(tape.new(mask, item, "attention: mask in numbers"))

    def back(tape, node, g):
        grads = [edge and tape.new(edge[1], item, GRAD) for edge in node.edges]
        tape.new((room, "attention's backward kernel"), 1, "attention's backward kernel", "workspace")
        return grads

    # The result keeps itself: what is saved is named after it is made.
    return tape.op(dims, item, "attention: result", [q, k, v], saved, back, keeps_itself=True)


def plain_attention(tape, q, k, v, scores, mask, spread_dims):
    """SDPA's plain kernel keeps scaled q and k, v for every query head, and the softmax: a number for every
    pair of tokens and head. 16-bit inputs are computed in fp32 (attention.cpp,
    _scaled_dot_product_attention_math)."""
    dims, half = q.dims, [q, k, v]
    if tape.compute is not None:
        half = [tape.cast(x, tape.compute, "q, k in 16 bits") for x in half]
    item = half[0].item
    wide = [
        tape.cast(x, 4, "attention: q, k, v in fp32") for x in half
    ]  # held to the end, as are those in 16 bits
    q, k, v = scale(tape, wide[0], "attention: q scaled"), wide[1], wide[2]
    if mask is not None:
        tape.new(mask, 1, "attention: mask")
        mask = tape.new(mask, 4, "attention: mask")
    if spread_dims is not None:
        k, v = (spread(tape, x, spread_dims) for x in (k, v))

    def in_order(x):
        # Heads lie between tokens in memory: they are copied into order for a product (repeating did so
        # already).
        return tape.op(x.dims, 4, "attention: q, k, v in order", [x])

    def product(q, k):
        k = scale(tape, k, "attention: k scaled")
        q, k = in_order(q), in_order(k) if spread_dims is None else k
        return matmul(tape, q, k, scores, "attention: scores")

    products = product(q, k)
    masked = products
    if mask is not None:
        masked = tape.op(scores, 4, "attention: scores", [products], back=lambda tape, node, g: [g])
    del products
    weights = tape.op(scores, 4, "attention: softmax", [masked], keeps_itself=True)
    del masked
    if item != 4:
        tape.new(scores, item, "attention: softmax in 16 bits")  # returned beside the result, and let go
    v = in_order(v) if spread_dims is None else v
    out = tape.cast(matmul(tape, weights, v, dims, "attention: result"), item, "attention: result")
    del q, k, v, weights, mask, half, wide
    return tape.op(dims, item, "attention: result", [out])


def eager_attention(tape, q, k, v, scores, mask, spread_dims):
    """transformers' own: keeps q, k and v for every query head, and the softmax in the dtype of q."""
    dims, item = q.dims, q.item
    if spread_dims is not None:
        k, v = (spread(tape, x, spread_dims) for x in (k, v))
    products = scale(tape, matmul(tape, q, k, scores, "attention: scores", True), "attention: scores")
    products = add(tape, products, mask, "attention: scores")

    def softmax(products):
        wide = tape.cast(products, 4, "attention: scores in fp32")
        weights = tape.op(scores, 4, "attention: softmax", [wide], keeps_itself=True)
        del wide
        return tape.cast(weights, item, "attention: softmax")

    products = softmax(products)
    out = matmul(tape, products, v, dims, "attention: result", True)
    return tape.op(dims, out.item, "attention: result", [out])


def matmul(tape, a, b, dims, label, autocast=False):
    """a @ b of two activations keeps both."""
    if autocast and tape.compute is not None:
        a, b = (tape.cast(x, tape.compute, f"{label}: input in 16 bits") for x in (a, b))
    return tape.op(dims, a.item, label, [a, b], [x for x, other in ((a, b), (b, a)) if other.needs])


def spread(tape, x, dims):
    """Keys or values repeated for every query head that shares them: a copy; its gradient is summed back."""
    return tape.op(dims, x.item, "attention: k, v for every query head", [x])


def embed(tape, w, dims, room):
    """Rows of a table: keeps the ids; the gradient of a trained table has the whole table's size."""

    def back(tape, node, g):
        grads = [tape.new(node.edges[0][1], node.edges[0][2], GRAD)]
        tape.new((room, "sorted ids"), 1, "embedding's backward kernel", "workspace")
        return grads

    return tape.op(dims, w.item, "embedded tokens", [w], back=back)


def cross_entropy(tape, logits, one, labels):
    """Mean of -log softmax(logits)[label], in fp32: the logits in fp32 and their log-softmax exist side by
    side; backward keeps the log-softmax and makes two more of its size."""
    logits = tape.cast(logits, 4, "logits in fp32", "logits and loss")
    dims = logits.dims

    def back(tape, node, g):
        return [tape.new(dims, 4, "gradient of the logits, fp32", "logits and loss")]

    logs = tape.op(
        dims, 4, "log-softmax, fp32", [logits], back=back, category="logits and loss", keeps_itself=True
    )
    labels = tape.new(labels, 8, "labels, shifted", "logits and loss")
    return tape.op(one, 4, "loss", [logs], [logs, labels], back, "logits and loss")
