// SPDX-License-Identifier: MIT
// Events on the threads of a warp: one each, with the bodies of the scalar arch, or one for all of them, a team. The
// values of an event lie in scratch, shared memory where they fit, and are moved there by the whole warp.
// Threads past the last event load and compute it too, but store nothing.
#pragma once
#include "body.hpp"
#include "plan.hpp"
#include "shared.hpp"
#include "transport.hpp"

namespace reparam::REPARAM_ARCH {

template <class Op, class T, bool kVjp, class N>
struct WarpPack : Body<WarpPack<Op, T, kVjp, N>, Op, T, kVjp, N> {
  using V = T;
  using Base = Body<WarpPack, Op, T, kVjp, N>;
  using Pass = PassOf<Op, kVjp>;
  static constexpr int kCount = Pass::count();
  static constexpr InPlace kInPlace = OpTraits<Op>::in_place(kVjp);
  static constexpr int kOwnSums = kShare ? kSums : 1;  // of each value, of the eight
  template <int I>
  using Element = typename ItemType<T, Pass::operand(I).item>::type;
  template <int I>
  using Value = typename LaneItem<V, Pass::operand(I).item>::type;

  const Call& call;
  const double* attributes;
  struct Slot {
    alignas(8) char bytes[8];
  };
  Slot slot[kCount];     // a scalar, in registers
  char* buffer[kCount];  // of this thread, or this team
  Ptr<T> sums[kCount];   // of a reduced output
  Ptr<V> scratch;
  RowsOfWarp<V> source[kCount];
  int64_t at[kCount], loaded[kCount];

  // Cuts `values` of `size` bytes for each thread, or for the team, out of the arena.
  static REPARAM_HD char* take(char* arena, int64_t& bytes, int64_t values, int64_t size) {
    char* const place = !arena   ? nullptr
                        : kShare ? arena + bytes
                                 : arena + bytes * REPARAM_STRIDE + lane_of_warp() * size;
    bytes += (values * size + 7) & ~int64_t{7};
    return place;
  }

  // Whether output I is computed over an input.
  template <int I>
  static REPARAM_HD bool shares_buffer(const Call& call) {
    return I == kInPlace.output && !call.operand[I].reduced;
  }

  template <int I>
  static REPARAM_HD void lay_out_operand(const Call& call, WarpPack* pack, char* arena, int64_t& bytes) {
    constexpr OperandSpec spec = Pass::operand(I);
    if (shares_buffer<I>(call)) {
      if constexpr (I == kInPlace.output)
        if (pack) pack->buffer[I] = pack->buffer[kInPlace.input];
      return;
    }
    if constexpr (spec.kind != Kind::scalar) {
      char* const place = take(arena, bytes, packed_values(spec, call.extent), sizeof(Value<I>));
      if (pack) pack->buffer[I] = place;
    }
    if (!Pass::spec().writes[I] || !call.operand[I].reduced) return;
    char* const own = take(arena, bytes, packed_values(spec, call.extent) * kOwnSums, sizeof(T));
    if (pack) pack->sums[I] = {reinterpret_cast<T*>(own)};
  }

  // Lays the buffers out from `arena`, of this warp, or only counts the bytes of a thread where it is null.
  template <int... I>
  static REPARAM_HD int64_t lay_out(const Call& call, WarpPack* pack, char* arena, Indices<I...>) {
    int64_t bytes = 0;
    (lay_out_operand<I>(call, pack, arena, bytes), ...);
    char* const place = take(arena, bytes, Base::scratch_values(call), sizeof(V));
    if (pack) pack->scratch = {reinterpret_cast<V*>(place)};
    return bytes;
  }

  template <int... I>
  REPARAM_HD void begin(char* arena, Indices<I...> all) {
    lay_out(call, this, arena, all);
    ((loaded[I] = kNotLoaded), ...);
  }

  template <int... I>
  REPARAM_HD void place(int64_t event, Indices<I...>) {
    ((at[I] = 0), ...);
    for (int k = call.rank - 1; k >= 0; --k) {
      const int64_t outer = k ? event / call.shape[k] : 0, index = event - outer * call.shape[k];
      ((at[I] += index * call.operand[I].batch_stride[k]), ...);
      event = outer;
    }
  }

  template <int I>
  REPARAM_HD auto values() {
    if constexpr (Pass::operand(I).kind == Kind::scalar) return reinterpret_cast<Value<I>*>(slot[I].bytes);
    else return Ptr<Value<I>>{reinterpret_cast<Value<I>*>(buffer[I])};
  }

  template <int I>
  REPARAM_HD auto view() {
    constexpr OperandSpec spec = Pass::operand(I);
    if constexpr (spec.kind == Kind::rows) return Rows<V, RowsOfWarp<V>>{&source[I]};
    else return view_of<spec, Pass::spec().writes[I], Value<I>>(values<I>(), call.operand[I].data != nullptr);
  }

  // Asks for operand I; it is there after `finish_copies`.
  template <int I>
  REPARAM_HD void load() {
    constexpr OperandSpec spec = Pass::operand(I);
    if constexpr (Pass::spec().reads[I]) {
      const OperandData& operand = call.operand[I];
      const auto* data = reinterpret_cast<const Element<I>*>(operand.data);
      uint64_t stream = 0;
      if constexpr (spec.drawable)
        if (operand.drawn) stream = reinterpret_cast<const uint64_t*>(operand.data)[at[I]];
      if constexpr (spec.kind == Kind::rows) {
        source[I] = {data,
                     at[I],
                     {operand.event_stride[0], operand.event_stride[1]},
                     call.extent[spec.symbol[1]],
                     values<I>(),
                     operand.drawn,
                     draw_key(call),
                     stream};
      } else if constexpr (spec.kind == Kind::scalar) {
        if constexpr (spec.drawable)
          if (operand.drawn) {
            draw_row(draw_key(call), stream, 0, 1, values<I>());
            return;
          }
        *values<I>() = static_cast<Value<I>>(data[at[I]]);
      } else {
        bool is_kept = true;  // until the result is computed over it
        if constexpr (I == kInPlace.input) is_kept = call.operand[kInPlace.output].reduced;
        if (is_kept && lanes_where(loaded[I] == at[I]) == kAll) return;  // one for many events
        loaded[I] = at[I];
        const int64_t d = call.extent[spec.symbol[0]];
        if constexpr (spec.drawable)
          if (operand.drawn) {
            draw_row<V>(draw_key(call), stream, 0, d, values<I>());
            return;
          }
        if (is_matrix(spec) && !operand.packed) load_lower(values<I>(), data, at[I], d, operand.event_stride);
        else
          load_values(values<I>(), data, at[I], spec.kind == Kind::vector ? d : triangle(d), operand.event_stride[0]);
      }
    }
  }

  template <int I>
  REPARAM_HD void store(uint32_t which) {
    constexpr OperandSpec spec = Pass::operand(I);
    const OperandData& operand = call.operand[I];
    if (!Pass::spec().writes[I] || !operand.data || operand.reduced) return;
    auto* data = reinterpret_cast<Element<I>*>(operand.data);
    if constexpr (spec.kind == Kind::scalar) {
      if (which >> lane_of_warp() & 1) data[at[I]] = static_cast<Element<I>>(*values<I>());
      return;
    }
    if constexpr (is_matrix(spec))
      if (!operand.packed) {
        store_lower(data, at[I], which, values<I>(), call.extent[spec.symbol[0]], operand.event_stride,
                    spec.kind == Kind::symmetric);
        return;
      }
    store_values(data, at[I], which, values<I>(), packed_values(spec, call.extent), operand.event_stride[0]);
  }

  template <int I>
  REPARAM_HD bool sums_up() const {
    return Pass::can_reduce(I) && call.operand[I].reduced && call.operand[I].data;
  }

  template <int I>
  REPARAM_HD void clear_sums() {
    if (!sums_up<I>()) return;
    const int64_t n = packed_values(Pass::operand(I), call.extent);
    for (int64_t j = rank_in_team(); j < n; j += kTeam)
      for (int k = 0; k < kOwnSums; ++k) sums[I][j * kOwnSums + k] = T(0);
  }

  // Adds the values of an event, term `term` of its block.
  template <int I>
  REPARAM_HD void accumulate(int64_t term) {
    if constexpr (Pass::can_reduce(I)) {
      if (!sums_up<I>()) return;
      const int64_t n = packed_values(Pass::operand(I), call.extent);
      for (int64_t j = rank_in_team(); j < n; j += kTeam) {
        T& sum = sums[I][j * kOwnSums + term % kOwnSums];
        // A slot that is indexed by j would keep the whole pack in memory.
        if constexpr (Pass::operand(I).kind == Kind::scalar) sum = sum + *values<I>();
        else sum = sum + values<I>()[j];
      }
    }
  }

  // The eight partial sums as one: those of 8 neighbouring threads, or of the team.
  template <int I>
  REPARAM_HD void join(char* partial) {
    if (!sums_up<I>()) return;
    const int64_t n = packed_values(Pass::operand(I), call.extent);
    const int lane = lane_of_warp(), rank = kShare ? lane : lane % kSums;
    for (int64_t j = rank; j < n; j += kShare ? kTeam : kSums) {
      Eight<T> parts;
      REPARAM_UNROLL
      for (int k = 0; k < kSums; ++k) parts.part[k] = value_of(lane - rank + k, sums[I], kShare ? j * kSums + k : j);
      reinterpret_cast<T*>(partial)[j] = parts.joined();
    }
  }

  template <int... I>
  REPARAM_HD void run_event(int64_t event, bool inside, bool wants_values, Indices<I...> all) {
    place(event, all);
    sync_warp();  // all have stored what their scratch held
    (load<I>(), ...);
    finish_copies();
    this->compute(wants_values);
    sync_warp();
    const uint32_t which = kShare ? inside : lanes_where(inside);
    (store<I>(which), ...);
  }

  // Events [0, count), or blocks [0, count) of a reduction: the team takes each whole; else a thread takes an event, or
  // partial sum number k of a block, of its terms k, k + 8, ...
  template <int... I>
  REPARAM_HD void run(int64_t count, const Blocks& blocks, int64_t warp, int64_t warps, Indices<I...> all) {
    const bool wants_values = any_value_wanted<Op, kVjp>(call), reduces = blocks.terms > 0;
    const int threads = kShare ? kWarp : reduces ? kSums : 1, together = kWarp / threads;
    const int part = lane_of_warp() % threads, apart = kShare ? 1 : threads;
    const int64_t terms = blocks.terms < kBlockTerms ? blocks.terms : int64_t{kBlockTerms};
    const int64_t steps = reduces ? (terms + apart - 1) / apart : 1;
    for (int64_t first = warp * together; first < count; first += warps * together) {
      const int64_t last = count - 1, mine = first + lane_of_warp() / threads, number = mine < last ? mine : last;
      const int64_t block = blocks.first + number;
      const int64_t begin = reduces ? blocks.begin(block) : number, end = reduces ? blocks.end(block) : number + 1;
      if (reduces) (clear_sums<I>(), ...);
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t term = step * apart + (kShare ? 0 : part), event = begin + term;
        const bool inside = mine <= last && event < end;
        run_event(event < end ? event : end - 1, inside, wants_values, all);
        if (reduces && inside) (accumulate<I>(term), ...);
      }
      if (!reduces) continue;
      sync_warp();
      const Partials partials = blocks.sums<T>(block);
      if (mine <= last) (join<I>(partials.first[I]), ...);
      sync_warp();  // before the sums are cleared
    }
  }
};

// Events [0, count), or blocks [0, count) of a reduction, of which this warp is number `warp` of `warps`; `attributes`
// are prepared.
template <class Op, class T, bool kVjp, class N>
REPARAM_HD void run_warp(const Call& call, const double* attributes, int64_t count, const Blocks& blocks, int64_t warp,
                         int64_t warps, char* arena) {
  if constexpr (is_elementwise<Op, kVjp>() && !kShare)
    if (blocks.terms == 0) {
      Elementwise<Op, T, kVjp> elementwise{call, attributes, {}, {}, {}};
      for (int64_t event = warp * kWarp + lane_of_warp(); event < count; event += warps * kWarp)
        elementwise.run(event, event + 1);
      return;
    }
  WarpPack<Op, T, kVjp, N> pack{{}, call, attributes, {}, {}, {}, {}, {}, {}, {}};
  constexpr indices<pack.kCount> all;
  pack.begin(arena, all);
  pack.run(count, blocks, warp, warps, all);
}

// Bytes of scratch of a warp.
template <class Op, class T, bool kVjp>
static int64_t warp_bytes(const Call& call) {
  using Pack = WarpPack<Op, T, kVjp, Dynamic>;
  bool packs = kShare || !is_elementwise<Op, kVjp>();
  for (const OperandData& operand : call.operand) packs = packs || operand.reduced;
  if (!packs) return 0;
  const int64_t bytes = Pack::lay_out(call, nullptr, nullptr, indices<Pack::kCount>{});
  return kShare ? bytes : bytes * REPARAM_STRIDE;
}

}  // namespace reparam::REPARAM_ARCH
