"""Counter-based random streams: every draw is a pure function of a member's key and the draw's place.

A serial generator returns its numbers in order, so the numbers of a network depend on all earlier draws.
Here a number is a hash of (key, counter), where the key belongs to the member and the counter is the index
of the draw. A member therefore sees the same data, minibatches and noise whether it is trained alone, packed,
resumed, on a CPU or on a GPU.

A key is a pair of 32-bit words, folded together from the member's seed, the stream and, for noise, the
step and the layer. The hash is the two-multiply finaliser `lowbias32` (C. Wellons, "Prospecting for Hash
Functions", 2018), applied twice with one key word injected before each pass. Everything is written in
int32 tensor operations, which wrap in torch, so a compiler can fuse the draw into its use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float64, Int32
from torch import Tensor


class Stream(IntEnum):
    """The purpose of a draw. The numbers are part of every result: never change or reuse one."""

    INITIALISATION = 1
    DATA = 2
    MINIBATCH = 3
    NOISE = 4
    EVALUATION_DATA = 5
    EVALUATION_NOISE = 6
    WEIGHT_NOISE = 7
    INPUT_NOISE = 8
    ABLATION = 9
    MASK = 10
    TASK = 11
    ADAPTATION = 12
    FRAME_NULL = 13
    GRAPH_NULL = 14
    COMMUNITIES = 20
    CUT = 31
    TRANSPLANT = 32
    EXPERTS = 33
    SEQUENTIAL = 40
    INPUT_PARTITIONS = 50


Words = npt.NDArray[np.uint32]
_WORD = 0xFFFFFFFF


def _signed(word: int) -> int:
    """Return the int32 with the same 32 bits as `word`."""
    word &= _WORD
    return word - (1 << 32) if word >= 1 << 31 else word


_MULTIPLIER_1 = _signed(0x7FEB352D)
_MULTIPLIER_2 = _signed(0x846CA68B)
_PAIRS_AT_ONCE = 1 << 16
"""Pairs of draws made at a time where nothing is compiled, few enough for a processor's cache."""
_GOLDEN_1 = _signed(0x9E3779B9)
_GOLDEN_2 = _signed(0x85EBCA6B)


def _shift_right(words: Tensor, places: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift copies the sign bit."""
    return (words >> places) & ((1 << (32 - places)) - 1)


def _mix(words: Tensor) -> Tensor:
    """Return the lowbias32 finaliser of int32 words: a bijection in which every input bit reaches every output bit."""
    words = (words ^ _shift_right(words, 16)) * _MULTIPLIER_1
    words = (words ^ _shift_right(words, 15)) * _MULTIPLIER_2
    return words ^ _shift_right(words, 16)


def member_keys(seeds: Sequence[int], device: torch.device | str = "cpu") -> Int32[Tensor, "member 2"]:
    """Return one key per seed. A seed is any integer in [0, 2^63); members with equal seeds share their draws.

    Equal seeds under different settings see the same data, initial weights, minibatches and noise, so
    settings can be compared in pairs.
    """
    words = np.array([[seed & _WORD, seed >> 32 & _WORD] for seed in seeds], dtype=np.uint32).reshape(-1, 2)
    words += np.array([_GOLDEN_1 & _WORD, _GOLDEN_2 & _WORD], dtype=np.uint32)
    _mix_words(words)
    return fold_in(torch.from_numpy(words.view(np.int32)), 0).to(device)


def fold_in(
    keys: Int32[Tensor, "member 2"], word: int | Int32[Tensor, ""] | Int32[Tensor, " member"]
) -> Int32[Tensor, "member 2"]:
    """Return new keys that depend on the old ones and on `word`: a stream, a step or a layer, or one word per key."""
    if isinstance(word, int):
        word = _signed(word)
    old, new = _words_of(keys), _words_of(word)
    if old is not None and new is not None:
        return _fold_words(old, new)
    first, second = keys[:, 0], keys[:, 1]
    new_first = _mix(_mix(first + word * _GOLDEN_1) ^ second)
    new_second = _mix(_mix(second ^ (word * _GOLDEN_2)) + new_first)
    return torch.stack([new_first, new_second], dim=1)


def _words_of(values: int | Tensor) -> Words | None:
    """Return integers in memory as unsigned words; None for those of a device, of a tracer or of a transform."""
    if isinstance(values, int):
        return np.array([values & _WORD], dtype=np.uint32)
    # Traced tensors are of other types, except where torch.compile says so, and those of torch.vmap have no memory.
    if torch.compiler.is_compiling() or type(values) is not Tensor:
        return None
    if not values.is_cpu or values.dtype != torch.int32:
        return None
    try:
        return np.atleast_1d(values.numpy().view(np.uint32))
    except RuntimeError:
        return None


def _fold_words(keys: Words, word: Words) -> Int32[Tensor, "member 2"]:
    """Return what `fold_in` does, by NumPy: in a tenth of the time, as torch takes long to begin each operation."""
    first, second = keys[:, 0], keys[:, 1]
    both = np.stack([first + word * (_GOLDEN_1 & _WORD), second ^ (word * (_GOLDEN_2 & _WORD))])
    _mix_words(both)
    both[0] ^= second
    _mix_words(both[0])
    both[1] += both[0]
    _mix_words(both[1])
    return torch.from_numpy(both.T.copy().view(np.int32))


def _mix_words(words: Words) -> None:
    """Put what `_mix` returns in the place of the words."""
    words ^= words >> 16
    words *= _MULTIPLIER_1 & _WORD
    words ^= words >> 15
    words *= _MULTIPLIER_2 & _WORD
    words ^= words >> 16


def _hash(keys: Tensor, counters: Tensor) -> Tensor:
    """Return a hash of (key, counter); keys gain trailing axes to broadcast against counters."""
    shape = (-1,) + (1,) * (counters.dim() - 1)
    return _mix(_mix(counters + keys[:, 0].view(shape)) ^ keys[:, 1].view(shape))


def _two_hashes(keys: Tensor, counters: Tensor) -> tuple[Tensor, Tensor]:
    """Return two hashes of (key, counter)."""
    first = _hash(keys, counters)
    return first, _mix(first + _GOLDEN_1)


def random_bits(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "#member *draws"]
) -> Int32[Tensor, "#member *draws"]:
    """Return 32 random bits for each counter of each member."""
    return _hash(keys, counters)


def uniforms(
    keys: Int32[Tensor, "member 2"], counters: Int32[Tensor, "#member *draws"]
) -> Float[Tensor, "#member *draws"]:
    """Return uniform draws from the open interval (0, 1), on a grid of 2^-23 offset by half a step."""
    return (_shift_right(random_bits(keys, counters), 9).float() + 0.5) * 2.0**-23


def integers(
    keys: Int32[Tensor, "member 2"],
    counters: Int32[Tensor, "#member *draws"],
    limits: Int32[Tensor, " member"],
) -> Int32[Tensor, "#member *draws"]:
    """Return draws from 0 to limit - 1; the remainder of 31 bits, so a bias of at most limit / 2^31.

    An integer remainder is slow, so the compiler stores these draws. A product and a shift would be
    folded into every use of the index, which then runs element by element: the whole step took three times as long.
    """
    bits = _shift_right(random_bits(keys, counters), 1)
    return bits % limits.view((-1,) + (1,) * (counters.dim() - 1))


def _hash_pairs(keys: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return two hashes for each place in the left half of a matrix, for it and for its mirror image."""
    half = (columns + 1) // 2
    counters = torch.arange(rows * half, dtype=torch.int32, device=keys.device).view(1, rows, half)
    return _two_hashes(keys, counters)


def bernoullis(
    keys: Int32[Tensor, "member 2"], shares: Float[Tensor, " member"], rows: int, columns: int
) -> Bool[Tensor, "member rows columns"]:
    """Return draws that are true with each member's probability `shares`, to within 2^-24; 0 never, 1 always."""
    bits = torch.cat(_hash_pairs(keys, rows, columns), dim=2)[:, :, :columns]
    limits = (shares * 2.0**24).ceil().int() - (1 << 23)
    return (bits >> 8) < limits[:, None, None]


def normals(keys: Int32[Tensor, "member 2"], rows: int, columns: int) -> Float[Tensor, "member rows columns"]:
    """Return standard normal draws by the transform of Box and Muller (1958).

    Two hashes give a radius sqrt(-2 ln u), u on a grid of 2^-24 so that |draw| is at most 5.77, and an
    angle; cosine and sine of it fill the left and the right half of each row. The two halves of one hash
    are the reason draws are made a matrix at a time: half the logarithms and half the hashing.
    """
    first, second = _hash_pairs(keys, rows, columns)
    radius = torch.sqrt(-2.0 * torch.log((_shift_right(first, 8).float() + 1.0) * 2.0**-24))
    angle = second.float() * (math.pi * 2.0**-31)
    draws = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2)
    return draws if columns % 2 == 0 else draws[:, :, :columns]


def drawn_normals(
    keys: Int32[Tensor, "member 2"], rows: int, columns: int
) -> Float[Tensor, "member rows columns"]:
    """Return `normals`, to the same bits, a piece at a time in place: three times as fast where nothing is compiled.

    What `normals` makes on its way exceeds a processor's cache; a compiler that sees it whole needs none of it.
    """
    half = (columns + 1) // 2
    draws = torch.empty(len(keys), rows, columns, device=keys.device)
    counters = torch.arange(rows * half, dtype=torch.int32, device=keys.device).view(1, rows, half)
    rows_at_once = max(1, min(rows, _PAIRS_AT_ONCE // max(1, half)))
    members_at_once = max(1, _PAIRS_AT_ONCE // max(1, rows * half))
    for start in range(0, len(keys), members_at_once):
        some = slice(start, start + members_at_once)
        for top in range(0, rows, rows_at_once):
            part = slice(top, top + rows_at_once)
            own_first, own_second = keys[some, 0, None, None], keys[some, 1, None, None]
            first = _mix_in_place(counters[:, part] + own_first)
            first = _mix_in_place(first.bitwise_xor_(own_second))
            second = _mix_in_place(first + _GOLDEN_1)
            radius = _shift_right(first, 8).float().add_(1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
            angle = second.float().mul_(math.pi * 2.0**-31)
            torch.mul(radius, angle.cos(), out=draws[some, part, :half])
            sines = angle.sin_()[:, :, : columns - half]
            torch.mul(radius[:, :, : columns - half], sines, out=draws[some, part, half:])
    return draws


def _mix_in_place(words: Tensor) -> Tensor:
    """Return what `_mix` returns, in the place of the words."""
    for places, multiplier in ((16, _MULTIPLIER_1), (15, _MULTIPLIER_2)):
        words.bitwise_xor_(_shift_right(words, places)).mul_(multiplier)
    return words.bitwise_xor_(_shift_right(words, 16))


def orthogonal_matrices(keys: Int32[Tensor, "member 2"], size: int) -> Float64[Tensor, "member size size"]:
    """Return orthogonal matrices drawn uniformly (Haar measure).

    Each is the orthogonal factor of a matrix of standard normals, its columns' signs fixed so that it is uniform
    (F. Mezzadri, "How to generate random matrices from the classical compact groups", 2007).
    """
    orthogonal, triangular = torch.linalg.qr(normals(keys, size, size).double())
    return orthogonal * torch.sign(torch.diagonal(triangular, dim1=1, dim2=2))[:, None, :]
