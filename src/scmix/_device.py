"""Where to compute, and in which number format."""

import torch

from scmix._errors import InputError

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose(
    device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[torch.device, torch.dtype]:
    """The device and number format to compute with.

    Parameters
    ----------
    device
        None or "auto": CUDA where there is a GPU, otherwise CPU. Apple's "mps" is taken only when
        it is asked for: it lacks operators and has given silent NaN.
    dtype
        None or "auto": bfloat16 where the processor is fast at it (AMX or AVX-512 BF16; CUDA from
        compute capability 8.0), otherwise float32.

    Examples
    --------
    >>> choose("cpu", "float32")
    (device(type='cpu'), torch.float32)
    """
    chosen = _device(device)
    if dtype is None or dtype == "auto":
        return chosen, torch.bfloat16 if _fast_in_bfloat16(chosen) else torch.float32
    number = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if number is None or number not in DTYPES.values():
        raise InputError(f"Found dtype={dtype!r}, expected 'auto' or one of {', '.join(DTYPES)}.")
    return chosen, number


def _device(device: str | torch.device | None) -> torch.device:
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(
            f"Found device={device!r}, expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from None
    if chosen.type == "cuda":
        _check_cuda(chosen)
        return torch.device("cuda", chosen.index or 0)
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"Found device={str(device)!r}, but torch sees no Apple GPU here.")
    return chosen


def _check_cuda(device: torch.device) -> None:
    if (device.index or 0) < torch.cuda.device_count():
        return
    raise InputError(
        f"Found device={str(device)!r}, but torch {torch.__version__} sees "
        f"{torch.cuda.device_count()} CUDA GPUs. Use device='cpu' or leave it out."
    )


def _fast_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        signs = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, sign, lambda: False)() for sign in signs)
    return False
