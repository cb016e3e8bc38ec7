// SPDX-License-Identifier: MIT
// What the two natural steps share: the longest step in each coordinate, and clipping to a norm.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr double kLongestMove = 1.0;    // of loc, in units of the scale
inline constexpr double kLongestChange = 0.5;  // of the scale, relative

// Joins |x| <= `most` of the values so far.
template <class V>
REPARAM_HD V larger(V most, V x) {
  return select(absolute(x) > most, absolute(x), most);
}

// What shortens n values to the norm `limit` where they are longer, 1 elsewhere; NaN where the norm is not finite. The
// values are divided by their largest, whose square may overflow.
template <class V>
REPARAM_HD V clip_factor(int64_t n, Ptr<const V> x, double limit) {
  V most = constant<V>(0);
  for (int64_t k = rank_in_team(); k < n; k += kTeam) most = larger(most, x[k]);
  most = join_team(most, [](V a, V b) { return larger(a, b); });
  most = select(most > constant<V>(0), most, constant<V>(1));
  V sum = constant<V>(0);
  for (int64_t k = rank_in_team(); k < n; k += kTeam) {
    const V part = x[k] / most;
    sum = mul_add(part, part, sum);
  }
  const V norm = most * square_root(sum_of_team(sum));
  return select(norm > constant<V>(limit), constant<V>(limit) / norm, constant<V>(1)) + (norm - norm);
}

}  // namespace reparam::REPARAM_ARCH
