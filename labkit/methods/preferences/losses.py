"""The losses of preference training, each as its formula: Bradley-Terry, DPO, IPO and GRPO.

A log-probability of an answer is the SUM over its tokens, unless a caller asks for the mean: the derivations
of DPO and IPO are about whole answers.
"""

import torch
from torch.nn.functional import logsigmoid

# ---- log-probabilities ----------------------------------------------------------------------------------


def token_logps(logits, ids):
    """log p(token t | tokens before it), in nats, of every token but the first.

    `logits` (batch, length, vocabulary), `ids` (batch, length); returns (batch, length - 1) in fp32.
    """
    scores = logits[:, :-1].float().log_softmax(-1)
    return scores.gather(-1, ids[:, 1:, None]).squeeze(-1)


def sequence_logps(logits, ids, mask, mean=False):
    """log p(answer | prompt) in nats: the sum over the answer's tokens, or with `mean` their mean.

    `logits` (batch, length, vocabulary); `ids` and `mask` (batch, length), where `mask` is 1 on answer tokens
    and 0 on prompt and padding; returns (batch,).
    """
    mask = mask[:, 1:]
    total = (token_logps(logits, ids) * mask).sum(-1)
    return total / mask.sum(-1) if mean else total


# ---- losses on pairs: every argument (batch,), the loss a mean over the batch ---------------------------


def bradley_terry_loss(chosen, rejected):
    """-log p(chosen beats rejected), whose log-odds are the difference of the rewards.

    Bradley and Terry (1952); as a loss for reward models Ouyang et al. (2022, arXiv:2203.02155, eq. 1).
    """
    return -logsigmoid(chosen - rejected).mean()


def margin(chosen, rejected, ref_chosen, ref_rejected):
    """How much more than the reference the policy prefers chosen: a difference of log-ratios, in nats."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    """Bradley-Terry with beta log(policy / reference) as the reward.

    Rafailov et al. (2023, arXiv:2305.18290, eq. 7). The arguments are log-probabilities of answers; those of
    the reference carry no gradient. With means over tokens instead of sums this is length-normalised DPO
    (Tulu 3: Lambert et al. 2024, arXiv:2411.15124), `sigmoid_norm` in trl, which wants a beta about as many
    times larger as answers have tokens.
    """
    return -logsigmoid(beta * margin(chosen, rejected, ref_chosen, ref_rejected)).mean()


def ipo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    """(margin - 1 / (2 beta))²: a margin to reach, and not to pass.

    Azar et al. (2023, arXiv:2310.12036, eq. 17), whose tau is `beta`. The paper sums over tokens; trl's `ipo`
    takes their mean: give means to get trl's loss.
    """
    return (margin(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * beta)).square().mean()


# ---- GRPO -----------------------------------------------------------------------------------------------


def group_advantages(rewards, scale=True):
    """How much better than its group each answer is: reward minus mean, over the standard deviation.

    `rewards` and the result (prompts, group). The deviation is over group - 1, and 1e-4 is added to it as in
    trl: in a group of equal rewards no answer has an advantage. DeepSeekMath (Shao et al. 2024,
    arXiv:2402.03300, section 4.1). Without `scale` as in Dr. GRPO (Liu et al. 2025, arXiv:2503.20783),
    because dividing weighs up the prompts on which answers hardly differ.
    """
    apart = rewards - rewards.mean(-1, keepdim=True)
    return apart / (rewards.std(-1, keepdim=True) + 1e-4) if scale else apart


def k3(policy, reference):
    """KL(policy || reference) at each sampled token: r - log r - 1 with r = reference / policy.

    Both are token log-probabilities of one shape. On the policy's own samples its value is unbiased, and it
    is never negative; its gradient is on average that of KL(reference || policy), unless it is weighted by
    policy / old. Eq. 4 of DeepSeekMath; k3 in Schulman's note "Approximating KL divergence" (2020).
    """
    log_r = reference - policy
    return log_r.exp() - log_r - 1


def grpo_loss(policy, old, reference, advantages, mask, beta, epsilon=0.2):
    """The clipped objective of GRPO with its KL term, as a loss (DeepSeekMath, arXiv:2402.03300, eq. 3).

    `policy`, `old` (what sampled the answers), `reference` and `mask` (answers, length): log-probabilities of
    answer tokens and which are no padding; `advantages` (answers,). A mean over each answer's tokens, then
    over answers. `reference` may be None where `beta` is 0.
    """
    ratio, advantages = (policy - old).exp(), advantages[:, None]
    gain = torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)
    loss = -gain if not beta else beta * k3(policy, reference) - gain
    return ((loss * mask).sum(-1) / mask.sum(-1)).mean()
