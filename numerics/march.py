"""The compiled march of two-time covariances, common to all problems.

One step takes X(t+1) = P X(t) + Q0 h(t) + Q1 h(t+1) + d(t) + noise: the Euler map and any declared map have Q1 = 0, the
trapezoidal rule of a flow has Q0 = Q1 and is solved by a few sweeps. Rows are indexed by the lag w = t − s; a band of
lags is kept. Arrays carry the label node l where something depends on it (otherwise their length there is one).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, check-untyped-defs=False
# mypy: disallow-untyped-calls=False
# Numba compiles these functions; their arguments are described in words.

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .pair_averages import kink_pair, kink_series

_TINY = 1e-150


@njit(cache=True)
def expand(site, o, l, now, m, v, q, p, kinks, rule, F, G):
    """Hermite coefficients F[o, now, :, l] of an output at mean m and variance v, G those of its kinks.

    kinks (3, j): places, gains of slope, jumps. Returns the part of ⟨f²⟩ that the series of the smooth part misses.
    """
    s = math.sqrt(max(v, _TINY))
    count, order, square = kinks.shape[1], rule.shape[0] - 2, 0.0
    series, split = np.zeros(order), np.zeros(order)
    for i in range(rule.shape[1]):
        u = m + s * rule[0, i]
        smooth = site(o, u, q, p)
        for j in range(count):
            if u > kinks[0, j]:
                smooth -= kinks[1, j] * (u - kinks[0, j]) + kinks[2, j]
            elif u == kinks[0, j]:
                smooth -= kinks[2, j] / 2
        weighted = rule[1, i] * smooth
        square += weighted * smooth
        for k in range(order):
            series[k] += weighted * rule[2 + k, i]
    missing = square
    for k in range(order):
        missing -= series[k] * series[k]
    for j in range(count):
        kink_series((m - kinks[0, j]) / s, s, kinks[1, j], kinks[2, j], split)
    for k in range(order):
        F[o, now, k, l] = series[k] + split[k]
        G[o, now, k, l] = split[k]
    return missing, s


@njit(cache=True, fastmath=True, inline="always")
def pair_average(a, b, t, s, C, row, w, weights, share, at, count, F, G, kinks, centre, sd, i, slopes):
    """⟨a(t) b(s)⟩ over units with Cov(X(t), X(s)) in C[row, label, w]; adds its slope of each label node to slopes[i].

    share[at] and the first `count` label nodes are those of both outputs. Inlined: references to so many arrays would
    cost more than the average.
    """
    n, many, value = weights.shape[1], C.shape[1] > 1, 0.0
    for l in range(count if many else 1):
        c = 0.0
        for x in range(n):
            if weights[a, x] != 0.0:
                for y in range(n):
                    c += weights[a, x] * weights[b, y] * C[row, l, w, x, y]
        size = sd[a, l, t] * sd[b, l, s]
        rho = min(max(c / size, -1.0), 1.0)
        first, last = l if many else 0, l + 1 if many else count
        series, rise = 0.0, 0.0  # Σ_k ρ^k Σ_node share (F_k F'_k − G_k G'_k) and its derivative
        for k in range(F.shape[2] - 1, -1, -1):
            part = 0.0
            for node in range(first, last):
                part += share[at, node] * (F[a, t, k, node] * F[b, s, k, node] - G[a, t, k, node] * G[b, s, k, node])
            rise = rise * rho + series
            series = series * rho + part
        for node in range(first, last):
            s1, s2 = sd[a, node, t], sd[b, node, s]
            for p in range(kinks.shape[3]):
                if kinks[a, node, 1, p] != 0.0 or kinks[a, node, 2, p] != 0.0:
                    x1 = (centre[a, node, t] - kinks[a, node, 0, p]) / s1
                    for q in range(kinks.shape[3]):
                        if kinks[b, node, 1, q] != 0.0 or kinks[b, node, 2, q] != 0.0:
                            x2 = (centre[b, node, s] - kinks[b, node, 0, q]) / s2
                            more, steeper = kink_pair(
                                x1, x2, s1, s2, rho, kinks[a, node, 1, p], kinks[a, node, 2, p],
                                kinks[b, node, 1, q], kinks[b, node, 2, q],
                            )  # fmt: skip
                            series += share[at, node] * more
                            slopes[i, l] += share[at, node] * steeper
        value += series
        slopes[i, l] += rise / size
    return value


@njit(cache=True, fastmath=True)
def field_covariances(
    now, first, begin, pairs, sources, coefficient, instant, C, row, weights, unit, share, count, F, G, kinks, centre,
    sd, k, K, kK,
):  # fmt: skip
    """Covariances of the local fields K(now, s) for s = first … now, and for s ≥ begin those of the perturbed fields.

    The latter are slopes of pair averages times the perturbation's covariance k (label, lag, n, n).
    """
    n = weights.shape[1]
    values, slopes = np.zeros(pairs.shape[0]), np.zeros((pairs.shape[0], C.shape[1]))
    for s in range(first, now + 1):
        w = now - s
        K[w] = 0.0
        kK[w] = 0.0
        slopes[:] = 0.0
        for i in range(pairs.shape[0]):
            at = unit[pairs[i, 0]]
            values[i] = pair_average(
                pairs[i, 0], pairs[i, 1], now, s, C, row, w, weights, share, at, count[at], F, G, kinks, centre, sd, i,
                slopes,
            )  # fmt: skip
        for j in range(sources.shape[0]):
            if w == 0 or not instant[j]:
                u, v, i = sources[j, 0], sources[j, 1], sources[j, 2]
                K[w, u, v] += coefficient[j] * values[i]
                if s >= begin:
                    for l in range(C.shape[1]):
                        c = 0.0
                        for x in range(n):
                            for y in range(n):
                                c += weights[pairs[i, 0], x] * weights[pairs[i, 1], y] * k[l, w, x, y]
                        kK[w, u, v] += coefficient[j] * slopes[i, l] * c


@njit(cache=True)
def times(A, B, out):
    """Add A·B to `out`; the matrices are too small for a library call."""
    for i in range(A.shape[0]):
        for k in range(A.shape[1]):
            a = A[i, k]
            if a != 0.0:
                for j in range(B.shape[1]):
                    out[i, j] += a * B[k, j]


@njit(cache=True)
def times_transposed(A, B, out):
    """Add A·Bᵀ to `out`."""
    for i in range(A.shape[0]):
        for j in range(B.shape[0]):
            total = 0.0
            for k in range(A.shape[1]):
                total += A[i, k] * B[j, k]
            out[i, j] += total


@njit(cache=True)
def respond(R, K, P, Q0, Q1, l, first, last, now):
    """R(now, s) of label node l for s = first + 1 … last from R(now, first), stored by lag."""
    for s in range(first, last):
        c, w = s % P.shape[0], now - s
        for u in range(R.shape[2]):
            for x in range(R.shape[3]):
                total = 0.0
                for y in range(R.shape[3]):
                    total += R[l, w, u, y] * P[c, l, x, y]
                for v in range(R.shape[2]):
                    total += K[w, u, v] * Q0[c, l, x, v] + K[w - 1, u, v] * Q1[c, l, x, v]
                R[l, w - 1, u, x] = total


@njit(cache=True)
def responses(R, K, edge, turn, P, Q0, Q1, first, now):
    """R(now, s) for s = first … now from K(now, s), stored by lag.

    R(now, first) is what a past gives that lasts: constant, by `edge`, or repeating itself every turn[0] steps, by
    turn[1] passes through the oldest of them.
    """
    for l in range(R.shape[0]):
        R[l, now - first] = 0.0
        times(K[now - first], edge[l], R[l, now - first])
        if first > 0 and now - first > turn[0]:
            for _ in range(turn[1]):
                respond(R, K, P, Q0, Q1, l, first, first + turn[0], now)
                R[l, now - first] = R[l, now - first - turn[0]]
        respond(R, K, P, Q0, Q1, l, first, now, now)


@njit(cache=True)
def advance(C, R, K, new, Rnew, Knew, P, Q0, Q1, noise, t, first, c):
    """Row t+1 of a covariance from row t; `noise` (label, n, n) is the covariance that the step adds."""
    n, m = P.shape[2], Q0.shape[3]
    later, here = np.zeros((m, n)), np.zeros((n, n))
    for l in range(C.shape[0]):
        for w in range(t - first + 1):
            for x in range(n):
                for y in range(n):
                    total = 0.0
                    for z in range(n):
                        total += P[c, l, x, z] * C[l, w, z, y]
                    for u in range(m):
                        total += Q0[c, l, x, u] * R[l, w, u, y] + Q1[c, l, x, u] * Rnew[l, w + 1, u, y]
                    new[l, w + 1, x, y] = total
        later[:] = 0.0
        times_transposed(R[l, 0], P[c, l], later)
        times_transposed(K[0], Q0[c, l], later)
        times_transposed(Knew[1].T, Q1[c, l], later)
        here[:] = noise[l]
        times_transposed(P[c, l], new[l, 1], here)
        times(Q0[c, l], later, here)
        times(Q1[c, l], Rnew[l, 0], here)
        new[l, 0] = (here + here.T) / 2


@njit(cache=True)
def outputs_at(
    now, site, p, labels, share, count, unit, weights, kinks, rule, mean, V, F, G, centre, sd, lost, psi, rise
):
    """Series of every output at one time from the means (L, n) and the covariance V (label, n, n) at equal times.

    Fills ψ = ⟨output⟩ and its derivative with the mean of each state, `rise` (outputs, n).
    """
    n = weights.shape[1]
    psi[:] = 0.0
    rise[:] = 0.0
    for o in range(weights.shape[0]):
        for l in range(count[unit[o]]):
            lc = l if V.shape[0] > 1 else 0
            v, mu = 0.0, 0.0
            for x in range(n):
                mu += weights[o, x] * mean[l, x]
                for y in range(n):
                    v += weights[o, x] * weights[o, y] * V[lc, x, y]
            missing, s = expand(site, o, l, now, mu, v, labels[unit[o], l], p, kinks[o, l], rule, F, G)
            centre[o, l, now], sd[o, l, now], lost[o, l] = mu, s, missing
            psi[o] += share[unit[o], l] * F[o, now, 0, l]
            for x in range(n):
                rise[o, x] += share[unit[o], l] * F[o, now, 1, l] / s * weights[o, x]


@njit(cache=True)
def settle(
    now, implicit, base, Q1, H, gains, held, inflow, terms,
    site, p, labels, share, count, unit, weights, kinks, rule, mean, V, F, G, centre, sd, lost, rise,
):  # fmt: skip
    """Means at one time: explicit, or by Newton's method for the fields H[now] and the shifts of constrained means.

    `base` (L, n) is what the step gives without them. Returns whether it converged.
    """
    m, c, psi = gains.shape[0], held.size, np.zeros(weights.shape[0])
    shift = np.zeros(c)
    step = np.zeros((weights.shape[1], m + c))
    for _ in range(50):
        for l in range(base.shape[0]):
            mean[l] = base[l] + Q1[l if Q1.shape[0] > 1 else 0] @ H[now]
            for i in range(c):
                mean[l, held[i]] += shift[i]
        outputs_at(
            now, site, p, labels, share, count, unit, weights, kinks, rule, mean, V, F, G, centre, sd, lost, psi, rise
        )
        if not implicit:
            H[now] = gains @ psi
            return True
        residual = np.zeros(m + c)
        residual[:m] = gains @ psi - H[now]
        for i in range(c):
            residual[m + i] = inflow[now, i] + terms[i] @ psi
        if np.max(np.abs(residual)) <= 1e-11 * (1.0 + np.max(np.abs(psi)) + np.max(np.abs(H[now]))):
            return True
        step[:, :m] = Q1[0]
        for i in range(c):
            step[held[i], m + i] = 1.0
        slope = rise @ step
        matrix = np.zeros((m + c, m + c))
        matrix[:m] = gains @ slope
        for u in range(m):
            matrix[u, u] -= 1.0
        for i in range(c):
            matrix[m + i] = terms[i] @ slope
        change = np.linalg.solve(matrix, residual)
        H[now] -= change[:m]
        for i in range(c):
            bound = 2.0 * math.sqrt(max(V[0, held[i], held[i]], 1e-6))
            shift[i] -= min(max(change[m + i], -bound), bound)
    return False


@njit(cache=True)
def march(
    site, p, labels, share, count, unit, weights, kinks, rule,
    P, Q0, Q1, noise, drive, edge, start_mean, start,
    gains, sources, coefficient, instant, pairs,
    held, owner, inflow, terms, band, turn, sweeps, grow_from, C, growth,
):  # fmt: skip
    """March as many steps as `drive` has.

    Parameters (n states, m fields, o outputs, L label nodes, T steps)
    ----------
    site : compiled site functions (output, u, label values, parameters p)
    labels (units, L, q), share (units, L), count (units,), unit (o,), weights (o, n), kinks (o, L, 3, j)
    rule (2 + K, nodes) : quadrature nodes, weights, and K Hermite functions
    P, Q0, Q1, noise (T or 1, 1 or L, …), drive (T, L, n), edge (1 or L, m, n) : the step
    start_mean (L, n), start (1 or L, n, n) : initial values
    gains (m, o) : means of the fields; sources (i, 3): fields u, v and pair; pairs (j, 2): outputs
    held, owner (c,), inflow (T + 1, c), terms (c, o) : states whose mean is adjusted, and their units
    turn (2,) : steps after which a lasting past repeats itself (0: it is constant), passes through them
    band, sweeps, grow_from : lags kept, sweeps a step (1: explicit), first time of a perturbation (−1: none)
    C (T + 1 or 2, 1 or L, band, n, n), growth (T + 1,) : filled with Cov(X(t), X(t−w)) and ln tr of a perturbation

    Returns
    -------
    means (L, T + 1, n), fields' means (T + 1, m), series F, G (o, T + 1, K, L), means and sds of the outputs' arguments
    (o, L, T + 1), slopes of the outputs' means (T + 1, o, n), missing part of the series (o, L), status: 0, or t + 1 of
    the time where no mean was found, or −t − 1 of the time where the state is not finite
    """
    T, L, n = drive.shape
    m, outs, K, Lc = gains.shape[0], weights.shape[0], rule.shape[0] - 2, P.shape[1]
    mean, H = np.zeros((L, T + 1, n)), np.zeros((T + 1, m))
    F, G = np.zeros((outs, T + 1, K, L)), np.zeros((outs, T + 1, K, L))
    centre, sd, rises = np.zeros((outs, L, T + 1)), np.ones((outs, L, T + 1)), np.zeros((T + 1, outs, n))
    lost, worst = np.zeros((outs, L)), np.zeros((outs, L))
    Kt, Kn = np.zeros((band + 1, m, m)), np.zeros((band + 1, m, m))
    kKt, kKn = np.zeros((band + 1, m, m)), np.zeros((band + 1, m, m))
    Rt, Rn = np.zeros((Lc, band + 1, m, n)), np.zeros((Lc, band + 1, m, n))
    kRt, kRn = np.zeros((Lc, band + 1, m, n)), np.zeros((Lc, band + 1, m, n))
    kt, kn = np.zeros((Lc, band + 1, n, n)), np.zeros((Lc, band + 1, n, n))
    silent, shut, quiet = np.zeros((Lc, n, n)), np.zeros((Lc, m, n)), np.zeros((Lc, n, m))
    base, here, still = np.zeros((L, n)), np.zeros((L, n)), np.zeros(2, dtype=np.int64)
    logged = 0.0
    for now in range(T + 1):
        t, first = now - 1, max(0, now - band + 1)
        row, c = now % C.shape[0], max(t, 0) % P.shape[0]
        growing, begin = 0 <= grow_from < now, max(first, grow_from)
        if now == 0:
            base[:] = start_mean
            C[0, :, 0] = start
        else:
            for l in range(L):
                lc = l if Lc > 1 else 0
                base[l] = P[c, lc] @ mean[l, t] + Q0[c, lc] @ H[t] + drive[t, l]
            for i in range(held.size):  # where to start: at the mean of the last step
                x, gap = held[i], 0.0
                for l in range(count[owner[i]]):
                    gap += share[owner[i], l] * (mean[l, t, x] - base[l, x])
                base[:, x] += gap
            H[now] = H[t]
        if sweeps > 1 and now > 0:
            Kn[0], kKn[0] = Kt[0], kKt[0]
            for s in range(first, now):
                Kn[now - s], kKn[now - s] = Kt[t - s], kKt[t - s]
        for _ in range(sweeps if now > 0 else 1):
            if now > 0:
                if sweeps > 1:
                    responses(Rn, Kn, edge if first > 0 else shut, turn, P, Q0, Q1, first, now)
                advance(C[t % C.shape[0]], Rt, Kt, C[row], Rn, Kn, P, Q0, Q1, noise[c % noise.shape[0]], t, first, c)
            if growing:
                if sweeps > 1:
                    responses(kRn, kKn, shut, still, P, Q0, Q1, begin, now)
                advance(kt, kRt, kKt, kn, kRn, kKn, P, Q0, Q1, silent, t, begin, c)
            elif grow_from == now:
                for l in range(Lc):
                    for x in range(n):
                        kn[l, 0, x, x] = 1.0
            implicit = held.size > 0 or (sweeps > 1 and now > 0)
            found = settle(
                now, implicit, base, Q1[c] if now > 0 else quiet, H, gains, held, inflow, terms, site, p, labels, share,
                count, unit, weights, kinks, rule, here, C[row, :, 0], F, G, centre, sd, lost, rises[now],
            )  # fmt: skip
            mean[:, now] = here
            if not found:
                return mean, H, F, G, centre, sd, rises, worst, now + 1
            field_covariances(
                now, first, grow_from if grow_from >= 0 else T + 1, pairs, sources, coefficient, instant, C, row,
                weights, unit, share, count, F, G, kinks, centre, sd, kn, Kn, kKn,
            )  # fmt: skip
        responses(Rn, Kn, edge if first > 0 else shut, turn, P, Q0, Q1, first, now)
        if 0 <= grow_from <= now:
            responses(kRn, kKn, shut, still, P, Q0, Q1, begin, now)
            total = 0.0
            for l in range(Lc):
                total += np.trace(kn[l, 0]) / Lc
            growth[now] = logged + math.log(max(total, 1e-300))
            if total > 0 and not 1e-60 < total < 1e60:
                kn /= total
                kRn /= total
                kKn /= total
                logged += math.log(total)
        if now > T // 2:
            worst = np.maximum(worst, lost)
        Kt, Kn, Rt, Rn = Kn, Kt, Rn, Rt
        kt, kn, kRt, kRn, kKt, kKn = kn, kt, kRn, kRt, kKn, kKt
        if not (np.all(np.isfinite(here)) and np.all(np.isfinite(C[row, :, 0]))):
            return mean, H, F, G, centre, sd, rises, worst, -now - 1
    return mean, H, F, G, centre, sd, rises, worst, 0


@njit(cache=True)
def expand_all(site, p, labels, share, count, unit, weights, kinks, rule, mean, C, rows):
    """Series, kinks' series, mean and sd of further functions of the units at the times `rows`."""
    outs, K, n = weights.shape[0], rule.shape[0] - 2, weights.shape[1]
    L, T = labels.shape[1], rows.size
    F, G = np.zeros((outs, T, K, L)), np.zeros((outs, T, K, L))
    centre, sd, lost = np.zeros((outs, L, T)), np.ones((outs, L, T)), np.zeros((outs, L))
    psi, rise = np.zeros(outs), np.zeros((outs, n))
    for i in range(T):
        outputs_at(
            i, site, p, labels, share, count, unit, weights, kinks, rule, mean[:, rows[i]], C[rows[i], :, 0], F, G,
            centre, sd, lost, psi, rise,
        )  # fmt: skip
    return F, G, centre, sd


@njit(cache=True)
def lagged_pairs(k, j, times, lags, origin, C, weights, share, at, count, F, G, kinks, centre, sd):
    """⟨f_k(t + w) f_j(t)⟩ over (times, lags); `origin` is the row of C that the first time of F belongs to."""
    out, slopes = np.zeros((times.size, lags.size)), np.zeros((1, C.shape[1]))
    for i in range(times.size):
        for h in range(lags.size):
            a, b = (k, j) if lags[h] >= 0 else (j, k)
            early = times[i] if lags[h] >= 0 else times[i] + lags[h]
            late, w = early + abs(lags[h]), abs(lags[h])
            out[i, h] = pair_average(
                a, b, late, early, C, origin + late, w, weights, share, at, count, F, G, kinks, centre, sd, 0, slopes
            )
    return out
