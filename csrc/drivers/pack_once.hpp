// SPDX-License-Identifier: MIT
// The packing loops and the noise, for the two lane types of an arch.
#pragma once
#include "pack.hpp"

namespace reparam::REPARAM_ARCH {

REPARAM_ONCE void load_run(FloatLanes* to, const float* data, const Places& places, int64_t n, int64_t stride,
                           int64_t readable) {
  load_run_loop(to, data, places, n, stride, readable);
}
REPARAM_ONCE void load_run(DoubleLanes* to, const double* data, const Places& places, int64_t n, int64_t stride,
                           int64_t readable) {
  load_run_loop(to, data, places, n, stride, readable);
}
REPARAM_ONCE void store_run(float* data, const Places& places, const FloatLanes* from, int64_t n, int64_t stride) {
  store_run_loop(data, places, from, n, stride);
}
REPARAM_ONCE void store_run(double* data, const Places& places, const DoubleLanes* from, int64_t n, int64_t stride) {
  store_run_loop(data, places, from, n, stride);
}
REPARAM_ONCE void load_lower(Tril<FloatLanes> to, FloatLanes* dense, const float* data, const Places& places,
                             bool crowded, int64_t d, const int64_t* stride) {
  load_lower_loop(to, dense, data, places, crowded, d, stride);
}
REPARAM_ONCE void load_lower(Tril<DoubleLanes> to, DoubleLanes* dense, const double* data, const Places& places,
                             bool crowded, int64_t d, const int64_t* stride) {
  load_lower_loop(to, dense, data, places, crowded, d, stride);
}
REPARAM_ONCE void store_lower(float* data, const Places& places, FloatLanes* dense, Tril<FloatLanes> from, bool crowded,
                              int64_t d, const int64_t* stride, bool symmetric) {
  store_lower_loop(data, places, dense, from, crowded, d, stride, symmetric);
}
REPARAM_ONCE void store_lower(double* data, const Places& places, DoubleLanes* dense, Tril<DoubleLanes> from,
                              bool crowded, int64_t d, const int64_t* stride, bool symmetric) {
  store_lower_loop(data, places, dense, from, crowded, d, stride, symmetric);
}
REPARAM_ONCE const FloatLanes* draw_row(Key key, const LanesWith<FloatLanes, uint64_t>& stream, int64_t row, int64_t n,
                                        FloatLanes* buffer) {
  return draw_row_loop<FloatLanes>(key, stream, row, n, buffer);
}
REPARAM_ONCE const DoubleLanes* draw_row(Key key, const LanesWith<DoubleLanes, uint64_t>& stream, int64_t row,
                                         int64_t n, DoubleLanes* buffer) {
  return draw_row_loop<DoubleLanes>(key, stream, row, n, buffer);
}

}  // namespace reparam::REPARAM_ARCH
