"""Kernels of rank encoding: leaf functions over the arrays of CSR matrices.

A matrix is the tuple `(data, indices, indptr)`, with unsigned indices; `genes` is `(token of each
column, medians by species and column, whether a column shares its token)`, a median NaN where the
gene is not to be used; `result` is `(ranked, offsets, lengths)`: row `i` is written to `ranked`
from `offsets[i]` on, and its length to `lengths[i]`.

The usable counts of a row are numbered; a number is its place. Scores become keys of 12 to 22 bits
(as many as the row is long), places are sorted by them with two radix passes, and runs of equal
keys are then settled on the exact scores and tokens. Medians and scores are float64 throughout.
"""

import numpy as np

from scmix._jit import jit

MAX_RANK = np.iinfo(np.uint16).max
_FEWEST_BITS, _MOST_BITS = 6, 11  # of a digit, of which a key has two
_MANY_TIES = 512  # above, runs may be too long for insertion sort


@jit()
def _gather(start, stop, matrix, genes, medians, score, single, token):
    """Collect the usable counts of a row as scores; return how many.

    Every count is written and the next one overwrites it where it is of no use: no branch to guess.
    """
    data, indices, _ = matrix
    tokens = genes[0]
    n = 0
    for i in range(start, stop):
        column = indices[i]
        value = data[i] / medians[column]
        score[n] = value
        single[n] = value
        token[n] = tokens[column]
        n += value > 0
    return n


@jit()
def _gather_sums(start, stop, matrix, genes, medians, score, single, token, seat, count):
    """Do what `_gather` does where columns share tokens: their counts are summed first."""
    data, indices, _ = matrix
    tokens, _, shared = genes
    n = 0
    for i in range(start, stop):
        column = indices[i]
        value = data[i] / medians[column]
        if not value > 0:
            continue
        place = n
        if shared[column]:
            earlier = seat[tokens[column]]
            if earlier < n and token[earlier] == tokens[column]:
                place = earlier
                value = (count[place] + data[i]) / medians[column]
                count[place] += data[i]
            else:
                seat[tokens[column]] = n
                count[n] = data[i]
        score[place] = value
        single[place] = value
        token[place] = tokens[column]
        n = max(n, place + 1)
    return n


@jit()
def _digit_bits(n):
    """Bits of a digit for `n` keys: about two keys to a value, so that counting them is cheap."""
    bits = _FEWEST_BITS
    while bits < _MOST_BITS and 2 << bits < n:
        bits += 1
    return bits


@jit()
def _make_keys(n, digit_bits, single, key):
    """Turn descending scores into ascending keys of two digits."""
    bits = single.view(np.int32)  # of a positive float32 they rise with its value
    top, bottom = np.int32(0), np.int32(0x7FFFFFFF)
    for i in range(n):
        top, bottom = max(top, bits[i]), min(bottom, bits[i])
    shift = 0
    while (top - bottom) >> shift >= 1 << (2 * digit_bits):
        shift += 1
    for i in range(n):
        key[i] = (top - bits[i]) >> shift


@jit()
def _drop_tail(n, keep, digit_bits, key, score, token, high):
    """Drop counts that cannot be among the first `keep`; return how many are left."""
    shift = np.uint32(digit_bits)
    high[: 1 << digit_bits] = 0
    for i in range(n):
        high[key[i] >> shift] += np.uint32(1)
    total, last = 0, -1
    while total < keep:
        last += 1
        total += high[last]
    left = 0
    for i in range(n):
        key[left], score[left], token[left] = key[i], score[i], token[i]
        left += (key[i] >> shift) <= last
    return left


@jit()
def _sort(n, digit_bits, key, low, high, spare, order):
    """Put the places into the order of their keys."""
    size, shift, one = 1 << digit_bits, np.uint32(digit_bits), np.uint32(1)
    mask = np.uint32(size - 1)
    low[:size] = 0
    high[:size] = 0
    for i in range(n):
        low[key[i] & mask] += one
        high[key[i] >> shift] += one
    before_low, before_high = np.uint32(0), np.uint32(0)
    for digit in range(size):
        low[digit], before_low = before_low, before_low + low[digit]
        high[digit], before_high = before_high, before_high + high[digit]
    for i in range(n):
        digit = key[i] & mask
        spare[low[digit]] = i
        low[digit] += one
    for i in range(n):
        place = spare[i]
        digit = key[place] >> shift
        order[high[digit]] = place
        high[digit] += one


@jit()
def _is_before(a, b, score, token):
    return score[a] > score[b] or (score[a] == score[b] and token[a] < token[b])


@jit()
def _merge(order, spare, left, middle, right, score, token):
    i, j = left, middle
    for k in range(left, right):
        rest = i < middle and j < right
        if i >= middle or (rest and _is_before(order[j], order[i], score, token)):
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
def _sort_runs(n, key, order, spare, score, token):
    start = 0
    for i in range(1, n + 1):
        if i == n or key[order[i]] != key[order[start]]:
            _merge_sort(order, spare, start, i, score, token)
            start = i


@jit()
def _settle_ties(n, key, order, spare, score, token):
    """Sort runs of equal keys by exact score, then token."""
    n_ties = 0
    for i in range(1, n):  # no branch to guess: faster, as ties are few
        spare[n_ties] = i
        n_ties += key[order[i]] == key[order[i - 1]]
    if n_ties > _MANY_TIES:
        _sort_runs(n, key, order, spare, score, token)
        return
    for tie in range(n_ties):
        at = spare[tie]
        place = order[at]
        while at > 0 and key[order[at - 1]] == key[place]:
            if not _is_before(place, order[at - 1], score, token):
                break
            order[at] = order[at - 1]
            at -= 1
        order[at] = place


@jit()
def rank_rows(where, matrix, genes, species, n_genes, result):
    """Rank the rows from `where[0]` to `where[1]`."""
    indptr = matrix[2]
    ranked, offsets, lengths = result
    longest = 0
    for row in range(where[0], where[1]):
        longest = max(longest, indptr[row + 1] - indptr[row])
    score, single = np.empty(longest, np.float64), np.empty(longest, np.float32)
    token, key = np.empty(longest, np.int32), np.empty(longest, np.uint32)
    order, spare = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    low, high = np.empty(1 << _MOST_BITS, np.uint32), np.empty(1 << _MOST_BITS, np.uint32)
    sums = genes[2].size > 0
    seat = np.zeros(genes[0].max() + 1 if sums else 0, np.int32)
    count = np.empty(longest if sums else 0, np.float64)
    for row in range(where[0], where[1]):
        start, stop = indptr[row], indptr[row + 1]
        medians = genes[1][species[row]]
        if sums:
            n = _gather_sums(start, stop, matrix, genes, medians, score, single, token, seat, count)
        else:
            n = _gather(start, stop, matrix, genes, medians, score, single, token)
        keep, digit_bits = min(n, n_genes), _digit_bits(n)
        _make_keys(n, digit_bits, single, key)
        if keep < n:
            n = _drop_tail(n, keep, digit_bits, key, score, token, high)
        _sort(n, digit_bits, key, low, high, spare, order)
        _settle_ties(n, key, order, spare, score, token)
        for i in range(keep):
            ranked[offsets[row] + i] = token[order[i]]
        lengths[row] = keep


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
