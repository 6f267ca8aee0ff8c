"""Sixteen matrix products at a time, one for every position of a Winograd tile.

`products` sums over what lies in neighbouring vectors, `sums` over lanes, too.
"""

from __future__ import annotations

from deep.engines.simd.compiled import compiled
from deep.engines.simd.vector import (
    LANES,
    add,
    broadcast,
    broadcast_wide,
    fma,
    high_half,
    load,
    load_wide,
    low_half,
    store,
    transpose,
    wide_fits,
    wide_zeros_like,
    zeros_like,
)
from deep.engines.simd.winograd_transforms import POSITIONS

V = LANES


@compiled
def _wide_8x4(buffer, x, x_k, x_step, u, u_c, u_k, u_step, count, d, d_ch, d_step, keep):
    """All positions' products of 8 channels and 4 vectors, in 16 wide accumulators."""
    for _ in range(POSITIONS):
        a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = wide_zeros_like(buffer)
        f0 = f1 = g0 = g1 = h0 = h1 = i0 = i1 = wide_zeros_like(buffer)
        if keep:
            q = d
            a0, a1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            b0, b1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            c0, c1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            e0, e1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            f0, f1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            g0, g1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            h0, h1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
            q += d_ch
            i0, i1 = load_wide(buffer, q), load_wide(buffer, q + 2 * V)
        p, k = x, u
        for _ in range(count):
            x0 = load_wide(buffer, p)
            x1 = load_wide(buffer, p + 2 * V)
            y = broadcast_wide(buffer, k)
            a0, a1 = fma(y, x0, a0), fma(y, x1, a1)
            y = broadcast_wide(buffer, k + u_c)
            b0, b1 = fma(y, x0, b0), fma(y, x1, b1)
            y = broadcast_wide(buffer, k + 2 * u_c)
            c0, c1 = fma(y, x0, c0), fma(y, x1, c1)
            y = broadcast_wide(buffer, k + 3 * u_c)
            e0, e1 = fma(y, x0, e0), fma(y, x1, e1)
            y = broadcast_wide(buffer, k + 4 * u_c)
            f0, f1 = fma(y, x0, f0), fma(y, x1, f1)
            y = broadcast_wide(buffer, k + 5 * u_c)
            g0, g1 = fma(y, x0, g0), fma(y, x1, g1)
            y = broadcast_wide(buffer, k + 6 * u_c)
            h0, h1 = fma(y, x0, h0), fma(y, x1, h1)
            y = broadcast_wide(buffer, k + 7 * u_c)
            i0, i1 = fma(y, x0, i0), fma(y, x1, i1)
            p += x_k
            k += u_k
        q = d
        store(buffer, q, a0)
        store(buffer, q + 2 * V, a1)
        q += d_ch
        store(buffer, q, b0)
        store(buffer, q + 2 * V, b1)
        q += d_ch
        store(buffer, q, c0)
        store(buffer, q + 2 * V, c1)
        q += d_ch
        store(buffer, q, e0)
        store(buffer, q + 2 * V, e1)
        q += d_ch
        store(buffer, q, f0)
        store(buffer, q + 2 * V, f1)
        q += d_ch
        store(buffer, q, g0)
        store(buffer, q + 2 * V, g1)
        q += d_ch
        store(buffer, q, h0)
        store(buffer, q + 2 * V, h1)
        q += d_ch
        store(buffer, q, i0)
        store(buffer, q + 2 * V, i1)
        x += x_step
        u += u_step
        d += d_step


@compiled
def _wide_8x2(buffer, x, x_k, x_step, u, u_c, u_k, u_step, count, d, d_ch, d_step, keep):
    """All positions' products of 8 channels and 2 vectors, in 8 wide accumulators."""
    for _ in range(POSITIONS):
        a0 = b0 = c0 = e0 = wide_zeros_like(buffer)
        f0 = g0 = h0 = i0 = wide_zeros_like(buffer)
        if keep:
            q = d
            a0 = load_wide(buffer, q)
            q += d_ch
            b0 = load_wide(buffer, q)
            q += d_ch
            c0 = load_wide(buffer, q)
            q += d_ch
            e0 = load_wide(buffer, q)
            q += d_ch
            f0 = load_wide(buffer, q)
            q += d_ch
            g0 = load_wide(buffer, q)
            q += d_ch
            h0 = load_wide(buffer, q)
            q += d_ch
            i0 = load_wide(buffer, q)
        p, k = x, u
        for _ in range(count):
            x0 = load_wide(buffer, p)
            y = broadcast_wide(buffer, k)
            a0 = fma(y, x0, a0)
            y = broadcast_wide(buffer, k + u_c)
            b0 = fma(y, x0, b0)
            y = broadcast_wide(buffer, k + 2 * u_c)
            c0 = fma(y, x0, c0)
            y = broadcast_wide(buffer, k + 3 * u_c)
            e0 = fma(y, x0, e0)
            y = broadcast_wide(buffer, k + 4 * u_c)
            f0 = fma(y, x0, f0)
            y = broadcast_wide(buffer, k + 5 * u_c)
            g0 = fma(y, x0, g0)
            y = broadcast_wide(buffer, k + 6 * u_c)
            h0 = fma(y, x0, h0)
            y = broadcast_wide(buffer, k + 7 * u_c)
            i0 = fma(y, x0, i0)
            p += x_k
            k += u_k
        q = d
        store(buffer, q, a0)
        q += d_ch
        store(buffer, q, b0)
        q += d_ch
        store(buffer, q, c0)
        q += d_ch
        store(buffer, q, e0)
        q += d_ch
        store(buffer, q, f0)
        q += d_ch
        store(buffer, q, g0)
        q += d_ch
        store(buffer, q, h0)
        q += d_ch
        store(buffer, q, i0)
        x += x_step
        u += u_step
        d += d_step


@compiled
def _narrow_4x2(buffer, x, x_k, x_step, u, u_c, u_k, u_step, count, d, d_ch, d_step, keep):
    """All positions' products of 4 channels and 2 vectors."""
    for _ in range(POSITIONS):
        a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = zeros_like(buffer)
        if keep:
            a0, a1 = load(buffer, d), load(buffer, d + V)
            b0, b1 = load(buffer, d + d_ch), load(buffer, d + d_ch + V)
            c0, c1 = load(buffer, d + 2 * d_ch), load(buffer, d + 2 * d_ch + V)
            e0, e1 = load(buffer, d + 3 * d_ch), load(buffer, d + 3 * d_ch + V)
        p, k = x, u
        for _ in range(count):
            x0 = load(buffer, p)
            x1 = load(buffer, p + V)
            y = broadcast(buffer, k)
            a0, a1 = fma(y, x0, a0), fma(y, x1, a1)
            y = broadcast(buffer, k + u_c)
            b0, b1 = fma(y, x0, b0), fma(y, x1, b1)
            y = broadcast(buffer, k + 2 * u_c)
            c0, c1 = fma(y, x0, c0), fma(y, x1, c1)
            y = broadcast(buffer, k + 3 * u_c)
            e0, e1 = fma(y, x0, e0), fma(y, x1, e1)
            p += x_k
            k += u_k
        store(buffer, d, a0)
        store(buffer, d + V, a1)
        store(buffer, d + d_ch, b0)
        store(buffer, d + d_ch + V, b1)
        store(buffer, d + 2 * d_ch, c0)
        store(buffer, d + 2 * d_ch + V, c1)
        store(buffer, d + 3 * d_ch, e0)
        store(buffer, d + 3 * d_ch + V, e1)
        x += x_step
        u += u_step
        d += d_step


@compiled
def products(buffer, x, x_k, x_step, vectors, u, u_c, u_k, u_step, count, d, d_ch, d_step, keep):
    """d[p, c, j] (+)= sum over k of u[p, c, k] x[p, k, j] for all positions p and eight c.

    ``vectors`` neighbouring j, an even number; ``x_k`` and ``d_ch`` floats between neighbours in k
    and c, ``*_step`` between positions.
    """
    j = 0
    if wide_fits(buffer):
        while j + 4 <= vectors:
            _wide_8x4(
                *(buffer, x + j * V, x_k, x_step, u, u_c, u_k, u_step, count),
                *(d + j * V, d_ch, d_step, keep),
            )
            j += 4
        while j < vectors:
            _wide_8x2(
                *(buffer, x + j * V, x_k, x_step, u, u_c, u_k, u_step, count),
                *(d + j * V, d_ch, d_step, keep),
            )
            j += 2
    while j < vectors:
        for c in range(0, V, 4):
            _narrow_4x2(
                *(buffer, x + j * V, x_k, x_step, u + c * u_c, u_c, u_k, u_step, count),
                *(d + c * d_ch + j * V, d_ch, d_step, keep),
            )
        j += 2


@compiled
def _add_totals(buffer, m, a, b, c, d, e, f, g, h):
    """Add the total of each of eight vectors to the eight numbers at ``m``."""
    a, b, c, d, e, f, g, h = transpose(a, b, c, d, e, f, g, h)
    sums = add(add(add(a, e), add(c, g)), add(add(b, f), add(d, h)))
    store(buffer, m, add(load(buffer, m), sums))


@compiled
def _fold(wide):
    return add(low_half(wide), high_half(wide))


@compiled
def _sums_2x8(buffer, x, x_ch, e, e_ch, count, m, m_ch):
    """Products of 2 channels with 8, summed over ``count`` pairs of vectors and over lanes."""
    a0 = b0 = c0 = d0 = f0 = g0 = h0 = i0 = wide_zeros_like(buffer)
    a1 = b1 = c1 = d1 = f1 = g1 = h1 = i1 = wide_zeros_like(buffer)
    for j in range(0, 2 * V * count, 2 * V):
        p = x + j
        e0, e1 = load_wide(buffer, e + j), load_wide(buffer, e + e_ch + j)
        y = load_wide(buffer, p)
        a0, a1 = fma(e0, y, a0), fma(e1, y, a1)
        y = load_wide(buffer, p + x_ch)
        b0, b1 = fma(e0, y, b0), fma(e1, y, b1)
        y = load_wide(buffer, p + 2 * x_ch)
        c0, c1 = fma(e0, y, c0), fma(e1, y, c1)
        y = load_wide(buffer, p + 3 * x_ch)
        d0, d1 = fma(e0, y, d0), fma(e1, y, d1)
        y = load_wide(buffer, p + 4 * x_ch)
        f0, f1 = fma(e0, y, f0), fma(e1, y, f1)
        y = load_wide(buffer, p + 5 * x_ch)
        g0, g1 = fma(e0, y, g0), fma(e1, y, g1)
        y = load_wide(buffer, p + 6 * x_ch)
        h0, h1 = fma(e0, y, h0), fma(e1, y, h1)
        y = load_wide(buffer, p + 7 * x_ch)
        i0, i1 = fma(e0, y, i0), fma(e1, y, i1)
    _add_totals(
        *(buffer, m, _fold(a0), _fold(b0), _fold(c0), _fold(d0)),
        *(_fold(f0), _fold(g0), _fold(h0), _fold(i0)),
    )
    _add_totals(
        *(buffer, m + m_ch, _fold(a1), _fold(b1), _fold(c1), _fold(d1)),
        *(_fold(f1), _fold(g1), _fold(h1), _fold(i1)),
    )


@compiled
def _every_other(buffer, x, x_ch, e, count):
    """Products of 1 channel with 8, summed over ``count`` vectors two apart; not over lanes."""
    a = b = c = d = f = g = h = i = zeros_like(buffer)
    for j in range(0, 2 * V * count, 2 * V):
        p = x + j
        y = load(buffer, e + j)
        a = fma(y, load(buffer, p), a)
        b = fma(y, load(buffer, p + x_ch), b)
        c = fma(y, load(buffer, p + 2 * x_ch), c)
        d = fma(y, load(buffer, p + 3 * x_ch), d)
        f = fma(y, load(buffer, p + 4 * x_ch), f)
        g = fma(y, load(buffer, p + 5 * x_ch), g)
        h = fma(y, load(buffer, p + 6 * x_ch), h)
        i = fma(y, load(buffer, p + 7 * x_ch), i)
    return a, b, c, d, f, g, h, i


@compiled
def _sums_1x8(buffer, x, x_ch, e, count, m):
    """As `_sums_2x8`, and in its order, one channel with 8: even vectors, odd ones, then both."""
    a0, b0, c0, d0, f0, g0, h0, i0 = _every_other(buffer, x, x_ch, e, count)
    a1, b1, c1, d1, f1, g1, h1, i1 = _every_other(buffer, x + V, x_ch, e + V, count)
    _add_totals(
        *(buffer, m, add(a0, a1), add(b0, b1), add(c0, c1), add(d0, d1)),
        *(add(f0, f1), add(g0, g1), add(h0, h1), add(i0, i1)),
    )


@compiled
def sums(buffer, x, x_ch, x_step, n_in, e, e_ch, e_step, count, m, m_step):
    """m[p, o, i] += sum over k and lanes of e[p, o, k] x[p, i, k]: eight o, ``n_in`` i, ``count`` k.

    ``count`` is even.
    """
    for _ in range(POSITIONS):
        for i in range(0, n_in, V):
            p = x + i * x_ch
            if wide_fits(buffer):
                for o in range(0, V, 2):
                    q = m + o * n_in + i
                    _sums_2x8(buffer, p, x_ch, e + o * e_ch, e_ch, count // 2, q, n_in)
            else:
                for o in range(V):
                    _sums_1x8(buffer, p, x_ch, e + o * e_ch, count // 2, m + o * n_in + i)
        x += x_step
        e += e_step
        m += m_step
