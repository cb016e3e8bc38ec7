// SPDX-License-Identifier: MIT
// Small linear algebra over packed lower factors that several ops share.
#pragma once
#include "lanes.hpp"
#include "math.hpp"
#include "view.hpp"
#include "warp.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr double kHalfLog2Pi = 0.91893853320467274178;  // log(2 pi) / 2

template <class V>
REPARAM_HD V constant(double x) {
  return V(static_cast<ElementOf<V>>(x));
}

template <class V>
REPARAM_HD V quiet_nan() {
  return V(static_cast<ElementOf<V>>(__builtin_nan("")));
}

// x where it is a scale, that is > 0; NaN elsewhere (the failure contract: never `<= 0`, which lets NaN pass).
template <class V>
REPARAM_HD V positive(V x) {
  return select(x > constant<V>(0), x, quiet_nan<V>());
}

// 0 where every scale is > 0, NaN elsewhere: added to an output, it poisons that event and no other.
template <class V>
REPARAM_HD V poison_unless_positive(int64_t d, Vec<const V> scale_diag) {
  V sum = constant<V>(0);
  for (int64_t i = rank_in_team(); i < d; i += kTeam) sum = select(scale_diag[i] > constant<V>(0), sum, quiet_nan<V>());
  return sum_of_team(sum);
}
template <class V>
REPARAM_HD V poison_unless_positive(int64_t d, Tril<const V> scale_tril) {
  V sum = constant<V>(0);
  for (int64_t i = rank_in_team(); i < d; i += kTeam)
    sum = select(scale_tril(i, i) > constant<V>(0), sum, quiet_nan<V>());
  return sum_of_team(sum);
}

// sum_i log x_i as one logarithm, of a product: x = 2^k m with m in [sqrt(1/2), sqrt(2)); the m are multiplied, the k
// added. A logarithm for each x took half the time of a log density. NaN unless every x is > 0, inf where one is.
template <class V>
class LogProduct {
 public:
  REPARAM_HD void multiply(V x) {
    using F = FormatOf<V>;
    const auto usual = (x >= V(F::min_normal)) & (x < V(F::infinity));
    const Scaled<V> part = any(!usual) ? split_unusual(x) : split_exponent(x);
    product_ = product_ * (V(1) + part.fraction);
    exponent_ = exponent_ + part.exponent;
    if (++factors_ % 32 == 0) normalize();  // the product is within 2^+-17
  }

  REPARAM_HD V log() {
    normalize();
    return log_scaled<Fused>(Scaled<V>{exponent_, product_ - V(1)}, V(0)) + special_;
  }

 private:
  REPARAM_HD void normalize() {
    const Scaled<V> part = split_exponent(product_);
    product_ = V(1) + part.fraction;
    exponent_ = exponent_ + part.exponent;
  }

  // Remembers what has no finite logarithm, and gives 1 in its place.
  REPARAM_HD Scaled<V> split_unusual(V x) {
    using F = FormatOf<V>;
    const auto finite = (x > V(0)) & (x < V(F::infinity));
    special_ = special_ + select(finite, V(0), select(x > V(0), x, V(F::nan)));
    return split_exponent_of_any(select(finite, x, V(1)));
  }

  V product_ = V(1), exponent_ = V(0), special_ = V(0);
  int64_t factors_ = 0;
};

template <class V>
REPARAM_HD V log_det(int64_t d, Vec<const V> scale_diag) {  // sum_i log scale_i, NaN unless all are > 0
  LogProduct<V> product;
  for (int64_t i = rank_in_team(); i < d; i += kTeam) product.multiply(scale_diag[i]);
  return sum_of_team(product.log());
}
template <class V>
REPARAM_HD V log_det(int64_t d, Tril<const V> scale_tril) {  // sum_i log L_ii, NaN unless all are > 0
  LogProduct<V> product;
  for (int64_t i = rank_in_team(); i < d; i += kTeam) product.multiply(scale_tril(i, i));
  return sum_of_team(product.log());
}

// A factor of d * (d + 1) / 2 elements that all lanes share.
template <class V>
REPARAM_HD SharedTril<V> share(int64_t d, const ElementOf<V>* first) {
  SharedTril<V> shared{first, constant<V>(0), constant<V>(0)};
  LogProduct<V> product;
  for (int64_t i = 0; i < d; ++i) {
    shared.poison = select(shared(i, i) > constant<V>(0), shared.poison, quiet_nan<V>());
    product.multiply(shared(i, i));
  }
  shared.log_det = product.log();
  return shared;
}
template <class V>
REPARAM_HD V poison_unless_positive(int64_t, SharedTril<V> scale_tril) {
  return scale_tril.poison;
}
template <class V>
REPARAM_HD V log_det(int64_t, SharedTril<V> scale_tril) {
  return scale_tril.log_det;
}

template <class V>
REPARAM_HD V square_norm(int64_t n, Vec<const V> x) {
  V sum = constant<V>(0);
  for (int64_t i = rank_in_team(); i < n; i += kTeam) sum = mul_add(x[i], x[i], sum);
  return sum_of_team(sum);
}

// sums[r][c] <- sums[r][c] - sum_{k < n} l(i + r, k) column[c][k]: a tile of R x C sums in registers, R + C loads for
// R C multiply-adds, whose order is that of one sum alone.
template <int R, int C, class V, class L>
REPARAM_HD void subtract_products(V (&sums)[R][C], L l, int64_t i, int64_t n, const Ptr<const V> (&column)[C]) {
  typename L::Row rows[R];
  REPARAM_UNROLL
  for (int r = 0; r < R; ++r) rows[r] = l.row(i + r);
  for (int64_t k = 0; k < n; ++k) {
    V minus[C];
    REPARAM_UNROLL
    for (int c = 0; c < C; ++c) minus[c] = -column[c][k];
    REPARAM_UNROLL
    for (int r = 0; r < R; ++r) REPARAM_UNROLL
    for (int c = 0; c < C; ++c) sums[r][c] = mul_add(rows[r][k], minus[c], sums[r][c]);
  }
}

// x <- L^-1 x, R rows from row i on, where x[0..i) is done.
template <int R, class V, class L>
REPARAM_HD void solve_rows(L l, int64_t i, Vec<V> x) {
  V sums[R][1];
  REPARAM_UNROLL
  for (int r = 0; r < R; ++r) sums[r][0] = x[i + r];
  subtract_products<R, 1>(sums, l, i, i, {x.first});
  REPARAM_UNROLL
  for (int r = 0; r < R; ++r) {
    V& sum = sums[r][0];
    REPARAM_UNROLL
    for (int k = 0; k < r; ++k) sum = mul_add(l(i + r, i + k), -sums[k][0], sum);
    sum = sum / l(i + r, i + r);
    x[i + r] = sum;
  }
}

// x <- L^-1 x.
template <class V, class L>
REPARAM_HD void solve_lower(int64_t d, L l, Vec<V> x) {
  if constexpr (kTeam > 1) {  // a column at a time
    for (int64_t i = 0; i < d; ++i) {
      const V xi = x[i] / l(i, i);
      sync_team();
      if (i % kTeam == rank_in_team()) x[i] = xi;
      for (int64_t k = i + 1 + rank_in_team(); k < d; k += kTeam) x[k] = mul_add(l(k, i), -xi, x[k]);
      sync_team();
    }
    return;
  }
  int64_t i = 0;
  for (; i + 4 <= d; i += 4) solve_rows<4>(l, i, x);
  for (; i < d; ++i) solve_rows<1>(l, i, x);
}

// x <- L^-T x, R rows from row i on, where x[i + R..) is done and taken off the rows above.
template <int R, class V, class L>
REPARAM_HD void solve_rows_transposed(L l, int64_t i, Vec<V> x) {
  V minus[R];
  typename L::Row rows[R];
  REPARAM_UNROLL
  for (int r = R - 1; r >= 0; --r) {
    V sum = x[i + r];
    REPARAM_UNROLL
    for (int k = R - 1; k > r; --k) sum = mul_add(l(i + k, i + r), minus[k], sum);
    x[i + r] = sum / l(i + r, i + r);
    minus[r] = -x[i + r];
    rows[r] = l.row(i + r);
  }
  for (int64_t k = 0; k < i; ++k) {
    V sum = x[k];
    REPARAM_UNROLL
    for (int r = R - 1; r >= 0; --r) sum = mul_add(rows[r][k], minus[r], sum);
    x[k] = sum;
  }
}

// x <- L^-T x.
template <class V, class L>
REPARAM_HD void solve_lower_transposed(int64_t d, L l, Vec<V> x) {
  if constexpr (kTeam > 1) {  // a row at a time
    for (int64_t i = d - 1; i >= 0; --i) {
      const V xi = x[i] / l(i, i);
      sync_team();
      if (i % kTeam == rank_in_team()) x[i] = xi;
      for (int64_t k = rank_in_team(); k < i; k += kTeam) x[k] = mul_add(l(i, k), -xi, x[k]);
      sync_team();
    }
    return;
  }
  int64_t i = d;
  for (; i >= 4; i -= 4) solve_rows_transposed<4>(l, i - 4, x);
  for (; i >= 1; --i) solve_rows_transposed<1>(l, i - 1, x);
}

// y <- L x + y. Row by row, four rows at a time so that their chains of sums overlap.
template <class V, class L>
REPARAM_HD void multiply_lower(int64_t d, L l, Vec<const V> x, Vec<V> y) {
  if constexpr (kTeam > 1) {  // a row for each thread
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      V sum = y[i];
      for (int64_t j = 0; j <= i; ++j) sum = mul_add(l(i, j), x[j], sum);
      y[i] = sum;
    }
    sync_team();
    return;
  }
  int64_t i = 0;
  for (; i + 4 <= d; i += 4) {
    const typename L::Row r0 = l.row(i), r1 = l.row(i + 1), r2 = l.row(i + 2), r3 = l.row(i + 3);
    V y0 = y[i], y1 = y[i + 1], y2 = y[i + 2], y3 = y[i + 3];
    for (int64_t j = 0; j <= i; ++j) {
      y0 = mul_add(r0[j], x[j], y0);
      y1 = mul_add(r1[j], x[j], y1);
      y2 = mul_add(r2[j], x[j], y2);
      y3 = mul_add(r3[j], x[j], y3);
    }
    y1 = mul_add(r1[i + 1], x[i + 1], y1);
    y2 = mul_add(r2[i + 2], x[i + 2], mul_add(r2[i + 1], x[i + 1], y2));
    y3 = mul_add(r3[i + 3], x[i + 3], mul_add(r3[i + 2], x[i + 2], mul_add(r3[i + 1], x[i + 1], y3)));
    y[i] = y0, y[i + 1] = y1, y[i + 2] = y2, y[i + 3] = y3;
  }
  for (; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) y[i] = mul_add(l(i, j), x[j], y[i]);
}

// y <- L^T x + y, four rows at a time: what a row adds to y[j] comes after the rows above it.
template <class V, class L>
REPARAM_HD void multiply_lower_transposed(int64_t d, L l, Vec<const V> x, Vec<V> y) {
  if constexpr (kTeam > 1) {  // a column for each thread
    for (int64_t j = rank_in_team(); j < d; j += kTeam) {
      V sum = y[j];
      for (int64_t i = j; i < d; ++i) sum = mul_add(l(i, j), x[i], sum);
      y[j] = sum;
    }
    sync_team();
    return;
  }
  int64_t i = 0;
  for (; i + 4 <= d; i += 4) {
    const typename L::Row r0 = l.row(i), r1 = l.row(i + 1), r2 = l.row(i + 2), r3 = l.row(i + 3);
    const V x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
    for (int64_t j = 0; j <= i; ++j)
      y[j] = mul_add(r3[j], x3, mul_add(r2[j], x2, mul_add(r1[j], x1, mul_add(r0[j], x0, y[j]))));
    y[i + 1] = mul_add(r3[i + 1], x3, mul_add(r2[i + 1], x2, mul_add(r1[i + 1], x1, y[i + 1])));
    y[i + 2] = mul_add(r3[i + 2], x3, mul_add(r2[i + 2], x2, y[i + 2]));
    y[i + 3] = mul_add(r3[i + 3], x3, y[i + 3]);
  }
  for (; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) y[j] = mul_add(l(i, j), x[i], y[j]);
}

// out <- tril(a b^T), with `diagonal(i)` added to entry (i, i). Row i of `out` may lie over what diagonal(i) reads.
template <class V>
REPARAM_HD void outer_lower(int64_t d, Vec<const V> a, Vec<const V> b, Tril<V> out) {
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = rank_in_team(); j <= i; j += kTeam) out(i, j) = a[i] * b[j];
  sync_team();
}
template <class V, class F>
REPARAM_HD void outer_lower(int64_t d, Vec<const V> a, Vec<const V> b, Tril<V> out, F diagonal) {
  for (int64_t i = 0; i < d; ++i) {
    if (i % kTeam == rank_in_team()) {  // the thread that writes entry (i, i) has read what lies there
      const V own = diagonal(i);
      out(i, i) = a[i] * b[i] + own;
    }
    for (int64_t j = rank_in_team(); j < i; j += kTeam) out(i, j) = a[i] * b[j];
  }
  sync_team();
}
template <class V>
REPARAM_HD void outer_lower(int64_t d, Vec<const V> a, Vec<const V> b, OuterProduct<V> out) {
  for (int64_t i = 0; i < d; ++i) out.set(i, a[i], b[i], constant<V>(0));
}
template <class V, class F>
REPARAM_HD void outer_lower(int64_t d, Vec<const V> a, Vec<const V> b, OuterProduct<V> out, F diagonal) {
  for (int64_t i = 0; i < d; ++i) out.set(i, a[i], b[i], diagonal(i));
}

// sum + error <- sum + error + x, to twice the precision (Knuth's two-sum).
template <class V>
REPARAM_HD void add_with_error(V& sum, V& error, V x) {
  const V total = sum + x, part = total - sum;
  error = error + ((sum - (total - part)) + (x - part));
  sum = total;
}

template <class V>
REPARAM_HD V rounded(V sum, V error) {  // an infinite sum has no error
  return select(error == error, sum + error, sum);
}

// A long sum: in order inside a block, the blocks joined with their rounding errors.
template <class V>
struct BlockSum {
  V block = constant<V>(0), total = constant<V>(0), error = constant<V>(0);
  REPARAM_HD void add(V x, bool ends_block) {
    block = block + x;
    if (ends_block) add_with_error(total, error, block), block = constant<V>(0);
  }
  REPARAM_HD V result() const { return rounded(total, error); }
};

template <class V>
REPARAM_HD Vec<const V> as_const(Vec<V> x) {
  return {x.first};
}

}  // namespace reparam::REPARAM_ARCH
