"""Checks and conversions that every function of the room shares; one ValueError line each."""

import torch
from torch import Tensor


def as_float(values: Tensor) -> Tensor:
    """float32 and float64 kept, half precision upcast, integers to the default float."""
    if not values.is_floating_point():
        return values.to(torch.get_default_dtype())
    # bfloat16 has 8 bits: exp and 1 - p would lose every probability near 0.
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def constant(values: Tensor) -> Tensor:
    """`as_float` without a gradient."""
    return as_float(values.detach())


def check_same_shape(**tensors: Tensor) -> None:
    # No broadcasting: [P] against [P, 1] would silently become [P, P].
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        raise ValueError(f"shapes must be equal, got {_shapes(tensors)}")


def check_vectors(**tensors: Tensor) -> None:
    if len({tensor.shape for tensor in tensors.values()}) > 1 or any(
        tensor.dim() != 1 for tensor in tensors.values()
    ):
        raise ValueError(f"expected vectors of one length, got {_shapes(tensors)}")


def check_indices(size: int | None = None, **tensors: Tensor) -> None:
    """Integer tensors; with `size`, every entry in 0..size-1."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise ValueError(f"{name} must hold integers, got {tensor.dtype}")
        if size is not None and tensor.numel():
            low, high = (int(bound) for bound in torch.aminmax(tensor))
            if low < 0 or high >= size:
                raise ValueError(f"{name} must be in 0..{size - 1}, got {low}..{high}")


def check_bool(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be a bool mask, got {tensor.dtype}")


def check_finite(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} must be finite, got nan or inf")


def check_unit_interval(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {number}")


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
