"""What the devices that torch runs on can do."""

from __future__ import annotations

import torch

_CPU, _CUDA = "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"
_HALVES = (torch.float16, torch.bfloat16)
_WIDEST = 256  # numbers per head that FlashAttention 2 takes


def splits_attention(device: torch.device, dtype: torch.dtype, width: int = 8) -> bool:
    """Whether attention over parts of the keys can be merged: torch tells its log-sum-exp there.

    On a CPU always, on CUDA where torch has FlashAttention 2: in half precision, from Ampere on.

    Args:
        device: where.
        dtype: of the keys.
        width: numbers per head.
    """
    if device.type == "cpu":
        return hasattr(torch.ops.aten, _CPU)
    is_cuda = device.type == "cuda" and torch.cuda.is_available() and not torch.version.hip
    if not is_cuda or not hasattr(torch.ops.aten, _CUDA):
        return False
    if dtype not in _HALVES or width > _WIDEST or width % 8:
        return False
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and its log-sum-exp, where `splits_attention`.

    Args:
        query: (rows, heads, queries, head dim).
        key: (rows, heads, keys, head dim); with `causal` as many keys as queries.
        value: as `key`.
        causal: whether a query sees only the keys up to its own.
        scale: of the scores.

    Returns:
        (rows, heads, queries, head dim) and (rows, heads, queries).
    """
    if query.device.type == "cpu":
        output, log_sum_exp = getattr(torch.ops.aten, _CPU)(
            query, key, value, is_causal=causal, scale=scale
        )
    else:
        output, log_sum_exp, *_ = getattr(torch.ops.aten, _CUDA)(
            query, key, value, 0.0, causal, False, scale=scale
        )
    return output, log_sum_exp
