"""Kernels of rank encoding: leaf functions over the arrays of CSR matrices.

A matrix is the tuple `(data, indices, indptr)`; `genes` is `(token of each column, medians by
species and column, whether a column shares its token)`; `result` is `(ranked, offsets, lengths)`:
row `i` is written to `ranked` from `offsets[i]` on, and its length to `lengths[i]`.

Scores are sorted as 22-bit keys with two radix passes; runs of equal keys are then settled on the
exact scores and tokens. Medians and scores are float64 throughout.
"""

import numba
import numpy as np

from scmix._jit import jit

MAX_RANK = np.iinfo(np.uint16).max
_DIGIT_BITS = 11
_KEY_BITS = 2 * _DIGIT_BITS
_DIGITS = 1 << _DIGIT_BITS
_ENTRY = np.uint64(0xFFFFFFFF)  # the lower half of a key is the place of its count in the row


@jit()
def _gather(start, stop, matrix, genes, medians, count, score, token, seat):
    """Collect the usable counts of a row as scores; return how many."""
    data, indices, _ = matrix
    tokens, _, shared = genes
    n = 0
    for i in range(start, stop):
        column = indices[i]
        median = medians[column]
        if not (data[i] > 0 and median > 0):
            continue
        if shared.size and shared[column]:
            earlier = seat[tokens[column]]
            if earlier < n and token[earlier] == tokens[column]:
                count[earlier] += data[i]
                score[earlier] = count[earlier] / median
                continue
            seat[tokens[column]] = n
            count[n] = data[i]
        score[n] = data[i] / median
        token[n] = tokens[column]
        n += 1
    return n


@jit()
def _make_keys(n, score, single, order):
    """Descending scores as ascending keys, each with the place of its score in the lower half."""
    bits = single.view(np.int32)  # of a positive float32 they rise with its value
    for i in range(n):
        single[i] = score[i]
    top, bottom = np.int32(0), np.int32(0x7FFFFFFF)
    for i in range(n):
        top, bottom = max(top, bits[i]), min(bottom, bits[i])
    shift = 0
    while (top - bottom) >> shift >= 1 << _KEY_BITS:
        shift += 1
    for i in range(n):
        order[i] = (np.uint64((top - bits[i]) >> shift) << np.uint64(32)) | np.uint64(i)


@jit()
def _drop_tail(order, n, keep, counts):
    """Drop keys that cannot be among the first `keep`; return how many are left."""
    shift = np.uint64(32 + _DIGIT_BITS)
    counts[:] = 0
    for i in range(n):
        counts[order[i] >> shift] += 1
    total, last = 0, -1
    while total < keep:
        last += 1
        total += counts[last]
    left = 0
    for i in range(n):
        if order[i] >> shift <= np.uint64(last):
            order[left] = order[i]
            left += 1
    return left


@jit()
def _radix_pass(source, target, n, shift, counts):
    mask = np.uint64(_DIGITS - 1)
    counts[:] = 0
    for i in range(n):
        counts[(source[i] >> shift) & mask] += 1
    total = 0
    for digit in range(_DIGITS):
        counts[digit], total = total, total + counts[digit]
    for i in range(n):
        digit = (source[i] >> shift) & mask
        target[counts[digit]] = source[i]
        counts[digit] += 1


@jit()
def _merge(order, spare, left, middle, right, score, token):
    i, j = left, middle
    for k in range(left, right):
        take_right = i >= middle
        if not take_right and j < right:
            a, b = order[i] & _ENTRY, order[j] & _ENTRY
            tied = score[a] == score[b]
            take_right = score[b] > score[a] or (tied and token[b] < token[a])
        if take_right:
            spare[k] = order[j]
            j += 1
        else:
            spare[k] = order[i]
            i += 1


@jit()
def _merge_sort(order, spare, start, stop, score, token):
    width = 1
    while width < stop - start:
        for left in range(start, stop, 2 * width):
            middle, right = min(left + width, stop), min(left + 2 * width, stop)
            _merge(order, spare, left, middle, right, score, token)
        for i in range(start, stop):
            order[i] = spare[i]
        width *= 2


@jit()
def _settle_ties(order, spare, n, keep, score, token):
    """Sort each run of equal keys by exact score, then token; runs are rare, but may be long."""
    i = 1
    while i < n and i <= keep:
        if (order[i] ^ order[i - 1]) > _ENTRY:
            i += 1
            continue
        start = i - 1
        while i < n and (order[i] ^ order[start]) <= _ENTRY:
            i += 1
        _merge_sort(order, spare, start, i, score, token)


@jit()
def rank_rows(where, matrix, genes, species, n_genes, result):
    """Rank the rows from `where[0]` to `where[1]`."""
    indptr = matrix[2]
    ranked, offsets, lengths = result
    longest = 0
    for row in range(where[0], where[1]):
        longest = max(longest, indptr[row + 1] - indptr[row])
    count, score = np.empty(longest, np.float64), np.empty(longest, np.float64)
    token, single = np.empty(longest, np.int32), np.empty(longest, np.float32)
    order, spare = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    seat = np.zeros(genes[0].max() + 1 if genes[0].size else 0, np.int32)
    counts = np.empty(_DIGITS, np.int32)
    for row in range(where[0], where[1]):
        medians = genes[1][species[row]]
        n = _gather(indptr[row], indptr[row + 1], matrix, genes, medians, count, score, token, seat)
        keep = min(n, n_genes)
        _make_keys(n, score, single, order)
        if keep < n:
            n = _drop_tail(order, n, keep, counts)
        _radix_pass(order, spare, n, np.uint64(32), counts)
        _radix_pass(spare, order, n, np.uint64(32 + _DIGIT_BITS), counts)
        _settle_ties(order, spare, n, keep, score, token)
        for i in range(keep):
            ranked[offsets[row] + i] = token[order[i] & _ENTRY]
        lengths[row] = keep


@jit(parallel=True)
def rank_chunks(where, matrix, genes, species, n_genes, result):
    for chunk in numba.prange(where.size - 1):
        rank_rows(where[chunk : chunk + 2], matrix, genes, species, n_genes, result)


@jit()
def close_gaps(ranked, offsets, indptr):
    for row in range(indptr.size - 1):
        for i in range(indptr[row + 1] - indptr[row]):
            ranked[indptr[row] + i] = ranked[offsets[row] + i]


@jit()
def place_ranks(matrix, sequences, column_tokens, n_tokens, ranks, columns):
    """Fill ranks and columns of a CSR matrix; return a row that does not fit, or -1."""
    data, indices, indptr = matrix
    tokens, starts = sequences
    rank_of = np.zeros(n_tokens, np.int32)
    for row in range(indptr.size - 1):
        k = starts[row]
        for i in range(k, starts[row + 1]):
            rank_of[tokens[i]] = i - k + 1
        for i in range(indptr[row], indptr[row + 1]):
            token = column_tokens[indices[i]]
            if token >= 0 and data[i] > 0 and rank_of[token] > 0:
                ranks[k], columns[k] = rank_of[token], indices[i]
                rank_of[token] = 0
                k += 1
        if k < starts[row + 1]:
            return row
    return -1


@jit()
def read_ranks(matrix, column_tokens, keep, ranked, offsets, lengths):
    """Tokens in the order of their ranks; return a row that does not fit, or -1."""
    ranks, indices, indptr = matrix
    token_at = np.full(MAX_RANK + 1, -1, np.int32)
    for row in range(indptr.size - 1):
        last = 0
        for i in range(indptr[row], indptr[row + 1]):
            if ranks[i] == 0:
                continue
            token = column_tokens[indices[i]]
            if token < 0 or token_at[ranks[i]] >= 0:
                return row
            token_at[ranks[i]] = token
            last = max(last, ranks[i])
        for rank in range(1, last + 1):
            if token_at[rank] >= 0 and lengths[row] < keep:
                ranked[offsets[row] + lengths[row]] = token_at[rank]
                lengths[row] += 1
            token_at[rank] = -1
    return -1
