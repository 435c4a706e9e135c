"""The numbers that are the card's and its libraries', not the model's: the one place to calibrate them."""

from dataclasses import dataclass

from labkit.memory.tape import rounded

MiB = 2**20
LOST = (0.75, 0.027, 0.25)  # see `reserved`


@dataclass(frozen=True)
class Machine:
    """What a card and its libraries add.

    context         bytes of a CUDA context with torch's, cuBLAS's and attention kernels loaded: outside torch
    workspace       bytes cuBLAS takes for each thread that multiplies, from torch's allocator
    """

    context: int
    workspace: int
    name: str


# Context: seen in 16 steps on an H200 (763 MiB; 747 where nothing ran in 16 bits). Workspace: 64 MiB were
# seen after forward and backward, which is 32 MiB for the main thread and as much for autograd's (compute
# capability 9.0, aten/src/ATen/cuda/CublasHandlePool.cpp).
H100 = Machine(context=763 * MiB, workspace=32 * MiB, name="one H100 or H200, CUDA 13")


def flash_backward(rows, seq, keys, heads, kv_heads, head_dim, item):
    """Bytes of room that the backward pass of a fused 16-bit attention kernel takes beside its results.

    dq is summed in fp32 over a length rounded up to 128 and heads rounded up to 32 wide, with one fp32 a
    query for the softmax; where query heads share keys, dk and dv exist for every query head first
    (pytorch: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_bwd).
    """
    long, wide = -(-seq // 128) * 128, -(-head_dim // 32) * 32
    room = rounded(4 * rows * long * heads * wide) + rounded(4 * rows * heads * long)
    if kv_heads != heads:
        room += 2 * rounded(item * rows * keys * heads * head_dim)
    return room


def efficient_backward(rows, seq, heads):
    """Bytes of room of the memory-efficient kernel (32-bit): one fp32 a query, length rounded up to 32."""
    return rounded(4 * rows * heads * (-(-seq // 32) * 32))


def embedding_backward(ids):
    """Bytes of room of the embedding's backward pass: above 3,072 ids it sorts them (Embedding.cu)."""
    return rounded(32 * ids) if ids > 3072 else 0


def attention_kernel(attention, item, grouped, masked):
    """Which kernel torch's SDPA chooses on a card of capability 8.0 or more: flash, efficient or math.

    16-bit: a fused one that knows grouped queries, unless there is a mask. 32-bit or masked: the
    memory-efficient one, which does not know grouped queries up to torch 2.13 (sdp_utils.cpp,
    `check_batch_size_and_num_heads_dense<false>`): those fall to the plain one, all scores in memory.
    """
    if attention != "flash":
        return attention
    if item == 2 and not masked:
        return "flash"
    return "math" if grouped else "efficient"


def reserved(peak, logits, activations, gradients):
    """About what torch's caching allocator has taken from the card when `peak` bytes live.

    What it holds beyond them are segments cached in sizes that nobody asks for again. A rule fitted to 177
    steps (base, 1B and 7B shapes) whose every request was played through a copy of the allocator: shares of
    one fp32 copy of the `logits`, of the `activations` and of the `gradients` alive at the peak. Its error
    there: median 1.5%, 95th percentile 7%, worst 13%; `labkit.memory.trace` plays the requests themselves.
    """
    lost = sum(share * size for share, size in zip(LOST, (logits, activations, gradients), strict=True))
    return _up(int(peak + lost), 2 * MiB)


def _up(size, step):
    return -(-size // step) * step


def fused_4bit(rows, outer, inner):
    """Does bitsandbytes multiply by NF4 weights without unpacking them first?

    The main cases of its table for an H100 (bitsandbytes/backends/cuda/ops.py, _gemm_4bit_use_custom_cuda).
    """
    if outer * inner >= 4 * 2**20:
        return rows <= 8
    blocks = -(-outer // 64)
    if 2 * inner < outer:
        return rows <= (512 if 3 * blocks < 132 else 320)
    return rows <= (32 if 4 * blocks <= 132 else 16 if 2 * blocks <= 132 else 4)
