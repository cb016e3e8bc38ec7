// SPDX-License-Identifier: MIT
// The Monte Carlo ELBO of q = N(loc, S S^T) and its gradient, S a lower factor or a diagonal. Over draws s = 1..n:
//   z_s = loc + S noise_s,  g_s = grad_z log p(x, z_s),  h_s = g_s + S^-T noise_s,  w_s = p(x, z_s) / q(z_s)
//   pathwise  value = mean log p(x, z_s) + sum_i log S_ii + d (1 + log 2 pi)/2   (Kingma, Welling, arXiv 1312.6114)
//             d loc = mean g_s;   d S = tril(mean g_s noise_s^T) + diag(1/S_ii)
//   stl       value = mean log w_s                                               (Roeder et al., arXiv 1703.09194)
//             d loc = mean h_s;   d S = tril(mean h_s noise_s^T)
//   iwae      value = logsumexp log w_s - log n;   w~ = softmax(log w)           (Burda et al., arXiv 1509.00519)
//             d loc = sum w~_s g_s;   d S = tril(sum w~_s g_s noise_s^T) + diag(1/S_ii)
//   dreg      d loc = sum w~_s^2 h_s;   d S = tril(sum w~_s^2 h_s noise_s^T)     (Tucker et al., arXiv 1810.04152)
// standard_error: sd(ddof 1)/sqrt(n) of log p (pathwise) or log w (stl); sqrt(n/(n-1) sum (w~ - 1/n)^2) for the others.
// Sums over draws: in order in blocks of 64, joined with their rounding errors (Knuth's two-sum; eight partial sums a
// block would take eight times the scratch). No noise is stored. 2 d^2 flops a draw beside the target's.
#pragma once
#include "elbo_family.hpp"

namespace reparam::REPARAM_ARCH {

template <class V, template <class> class Family>
struct ElboSums {
  using F = Family<V>;
  static constexpr int64_t kBlock = 64;

  int64_t d, draws;
  Estimator estimator;
  bool weighted;  // the gradients come times their weights
  typename F::Input scale;
  V log_det;
  ElboOutputs<V> out;
  Ptr<V> block_loc, block_scale, error_loc, error_scale;
  Vec<V> term, solved;
  V shift, inverse_total;  // of the softmax

  REPARAM_HD ElboSums(int64_t draws_, int64_t d_, const double* attribute, bool weighted_, typename F::Input scale_,
                      Ptr<V> scratch, ElboOutputs<V> outputs)
      : d(d_),
        draws(draws_),
        estimator(static_cast<Estimator>(static_cast<int>(attribute[0]))),
        weighted(weighted_),
        scale(scale_),
        log_det(reparam::REPARAM_ARCH::log_det<V>(d_, scale_)),
        out(outputs),
        block_loc(scratch),
        block_scale(scratch + d_),
        error_loc(block_scale + F::values(d_)),
        error_scale(error_loc + d_),
        term{error_scale + F::values(d_)},
        solved{term.first + d_},
        shift(constant<V>(0)),
        inverse_total(constant<V>(1)) {
    for (int64_t k = rank_in_team(); k < 2 * (d + F::values(d)); k += kTeam) scratch[k] = constant<V>(0);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) out.ct_loc[i] = constant<V>(0);
    for (int64_t k = rank_in_team(); k < F::values(d); k += kTeam) out.ct_scale[k] = constant<V>(0);
  }

  REPARAM_HD bool importance() const { return estimator == Estimator::iwae || estimator == Estimator::dreg; }
  REPARAM_HD bool path_only() const { return estimator == Estimator::stl || estimator == Estimator::dreg; }
  REPARAM_HD bool ends_block(int64_t s) const { return (s + 1) % kBlock == 0 || s + 1 == draws; }
  REPARAM_HD V softmax(int64_t s) const { return exp(out.log_weights[s] - shift) * inverse_total; }

  REPARAM_HD void weigh(int64_t s, Vec<const V> noise, V log_prob) {
    const V log_q = -(mul_add(constant<V>(0.5), square_norm<V>(d, noise), log_det) + constant<V>(d * kHalfLog2Pi));
    if (rank_in_team() == 0) out.log_weights[s] = log_prob - log_q;
  }

  // After all log weights: what softmax needs, and the value of an importance-weighted bound.
  REPARAM_HD void normalize() {
    sync_team();
    V most = constant<V>(-__builtin_inf());
    for (int64_t s = 0; s < draws; ++s) most = select(out.log_weights[s] > most, out.log_weights[s], most);
    shift = select(absolute(most) < constant<V>(__builtin_inf()), most, constant<V>(0));
    BlockSum<V> total;
    for (int64_t s = 0; s < draws; ++s) total.add(exp(out.log_weights[s] - shift), ends_block(s));
    inverse_total = constant<V>(1) / total.result();
    out.value() = shift + log(total.result()) - log(constant<V>(static_cast<double>(draws)));
  }

  // What draw s gives the gradient in z: term may be grad itself.
  REPARAM_HD void make_term(int64_t s, Ptr<const V> noise, Ptr<const V> grad, Ptr<V> to) const {
    const V equal = constant<V>(weighted ? 1.0 / static_cast<double>(draws) : 1);
    const V weight = importance() ? softmax(s) : equal, grad_weight = weighted ? constant<V>(1) : weight;
    for (int64_t i = rank_in_team(); i < d && !path_only(); i += kTeam) to[i] = grad_weight * grad[i];
    if (!path_only()) return;
    for (int64_t i = rank_in_team(); i < d; i += kTeam) solved[i] = noise[i];
    sync_team();
    F::solve_transposed(d, scale, solved);
    const V again = estimator == Estimator::dreg ? weight : constant<V>(1);
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      to[i] = again * mul_add(grad[i], grad_weight, weight * solved[i]);
  }

  // Draws s .. s + R, all in one block of 64.
  template <int R>
  REPARAM_HD void add(int64_t s, Ptr<const V> noise, Ptr<const V> terms) {
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) block_loc[i] = block_loc[i] + terms[r * d + i];
    F::template add_outer<R>(d, terms, noise, block_scale);
    if (ends_block(s + R - 1)) close_block();
  }

  REPARAM_HD void close_block() {
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) add_with_error(out.ct_loc[i], error_loc[i], block_loc[i]);
    for (int64_t k = rank_in_team(); k < F::values(d); k += kTeam)
      add_with_error(out.ct_scale[k], error_scale[k], block_scale[k]);
    sync_team();
    for (int64_t k = rank_in_team(); k < d + F::values(d); k += kTeam)
      block_loc[k] = constant<V>(0);  // block_scale lies behind
  }

  REPARAM_HD void finish(Vec<const V> log_prob) {
    const double n = static_cast<double>(draws);
    const V poison = log_det - log_det, over = constant<V>(importance() || weighted ? 1 : n);
    sync_team();
    finish_value(log_prob, poison);
    if (!out.wants_gradient) return;
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      out.ct_loc[i] = rounded(out.ct_loc[i], error_loc[i]) / over + poison;
    for (int64_t k = rank_in_team(); k < F::values(d); k += kTeam)
      out.ct_scale[k] = rounded(out.ct_scale[k], error_scale[k]) / over + poison;
    if (path_only()) return;
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const int64_t k = F::diagonal(i);
      out.ct_scale[k] = out.ct_scale[k] + constant<V>(1) / scale.first[k];
    }
  }

  REPARAM_HD void finish_value(Vec<const V> log_prob, V poison) {
    const double n = static_cast<double>(draws);
    const bool pathwise = estimator == Estimator::pathwise;
    V mean = constant<V>(1.0 / n);  // of the weights
    if (!importance()) {
      BlockSum<V> sum;
      for (int64_t s = 0; s < draws; ++s) sum.add(pathwise ? log_prob[s] : out.log_weights[s], ends_block(s));
      mean = sum.result() / constant<V>(n);
      out.value() = pathwise ? mean + log_det + constant<V>(d * (0.5 + kHalfLog2Pi)) : mean;
    }
    BlockSum<V> squares;
    for (int64_t s = 0; s < draws; ++s) {
      const V x = importance() ? softmax(s) : pathwise ? log_prob[s] : out.log_weights[s];
      squares.add((x - mean) * (x - mean), ends_block(s));
    }
    const double scale_of = importance() ? n / (n - 1) : 1 / ((n - 1) * n);
    out.standard_error() = draws > 1 ? square_root(squares.result() * constant<V>(scale_of)) + poison : quiet_nan<V>();
  }
};

}  // namespace reparam::REPARAM_ARCH
