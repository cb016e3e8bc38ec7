// SPDX-License-Identifier: MIT
// Runs a body over a range of events: packs W events, calls the body once, unpacks. Knows loops and layouts, no
// formula. The tail is padded with copies of the last event, so there is no second code path.
#pragma once
#include "body.hpp"
#include "position.hpp"
#include "shared.hpp"
#include "stage.hpp"

namespace reparam::REPARAM_ARCH {

template <class Op, class T, bool kVjp, class N, bool kShared>
struct Pack : Body<Pack<Op, T, kVjp, N, kShared>, Op, typename NativeLanes<T>::type, kVjp, N> {
  using V = typename NativeLanes<T>::type;
  using Base = Body<Pack, Op, V, kVjp, N>;
  using Pass = PassOf<Op, kVjp>;
  static constexpr int W = LaneTraits<V>::width;
  static constexpr int kCount = Pass::count();
  static constexpr InPlace kInPlace = OpTraits<Op>::in_place(kVjp);
  static constexpr int kFactor = kShared ? FactorOf<Op, kVjp>::value : -1;
  static constexpr int kOuter = kShared ? FactorOf<Op, kVjp>::cotangent : -1;
  template <int I>
  using Element = typename ItemType<T, Pass::operand(I).item>::type;
  template <int I>
  using Value = typename LaneItem<V, Pass::operand(I).item>::type;

  const Call& call;
  const double* attributes;
  char* buffer[kCount];
  T* sums[kCount];  // 8 partial sums per value of a reduced output
  RowSource<V, false> source[kCount];
  RowSource<V, true> drawable_source[kCount];
  V* dense;
  V* scratch;
  T* stage;  // where results that are streamed are put together
  Route routes[kCount];
  Position<kCount, W> position;
  SharedTril<V> factor;
  int64_t term;       // number of this pack's first event in its block
  int64_t remaining;  // events of the block, those of this pack included

  static REPARAM_HD int64_t dense_values(const Call& call) {
    int64_t most = 0;
    const PassSpec pass = Pass::spec();
    for (int i = 0; i < kCount; ++i) {
      const int64_t d = call.extent[pass.operand[i].symbol[0] < 0 ? 0 : pass.operand[i].symbol[0]];
      const int64_t values = d < 4 ? d * d : d;  // a row, or a matrix narrower than a block
      if (is_matrix(pass.operand[i]) && values > most) most = values;
    }
    return most;
  }

  // Whether output i is computed over an input, which halves what must fit into L1. An input that stays for many events
  // is kept.
  static REPARAM_HD bool shares_buffer(const Call& call, int i) {
    return i == kInPlace.output && call.rank > 0 && call.operand[kInPlace.input].batch_stride[call.rank - 1] != 0 &&
           !call.operand[i].reduced;
  }

  // Lays the buffers out from `arena`, or only counts the bytes where it is null.
  static REPARAM_HD int64_t lay_out(const Call& call, Pack* pack, char* arena) {
    const PassSpec pass = Pass::spec();
    int64_t bytes = 0;
    for (int i = 0; i < kCount; ++i) {
      const int64_t values = packed_values(pass.operand[i], call.extent);
      const Item item = pass.operand[i].item;
      const int64_t size = item == Item::u8 ? 8 * W : item == Item::u4 ? 4 * W : static_cast<int64_t>(sizeof(V));
      if (shares_buffer(call, i)) {
        if (pack) pack->buffer[i] = pack->buffer[kInPlace.input];
        continue;
      }
      if (pack) pack->buffer[i] = arena + bytes;
      if (i == kFactor || i == kOuter) {
        const int64_t d = call.extent[pass.operand[i].symbol[0]];
        bytes += aligned(i == kFactor ? values * static_cast<int64_t>(sizeof(T)) : OuterBlock<V>::bytes(d));
        continue;
      }
      bytes += aligned(values * size);
      if (!pass.writes[i] || !call.operand[i].reduced) continue;
      if (pack) pack->sums[i] = reinterpret_cast<T*>(arena + bytes);
      bytes += aligned(values * 8 * static_cast<int64_t>(sizeof(T)));
    }
    if (pack) pack->dense = reinterpret_cast<V*>(arena + bytes);
    bytes += aligned(dense_values(call) * static_cast<int64_t>(sizeof(V)));
    if (pack) pack->scratch = reinterpret_cast<V*>(arena + bytes);
    bytes += aligned(Base::scratch_values(call) * static_cast<int64_t>(sizeof(V)));
    int64_t pitch = 0;  // one copy at a time
    for (int i = 0; i < kCount; ++i) {
      const OperandSpec operand = pass.operand[i];
      if (!is_matrix(operand)) continue;
      const Route found = route<V, T>(call, call.operand[i], call.extent[operand.symbol[0]], pass.writes[i]);
      if (pack) pack->routes[i] = found;
      if (found.pitch > pitch) pitch = found.pitch;
    }
    if (pack) pack->stage = reinterpret_cast<T*>(arena + bytes);
    return bytes + aligned(W * pitch * static_cast<int64_t>(sizeof(T)));
  }

  REPARAM_HD int64_t step(int i) const { return call.rank == 0 ? 0 : call.operand[i].batch_stride[call.rank - 1]; }

  // Where the lanes stand in operand i; those past the end of a range stand on the last event.
  REPARAM_HD Places placed(int i) const {
    const int64_t apart = step(i);
    return {position.at[i], position.one_row && (apart == 0 || position.count == W) ? apart : kAnywhere};
  }

  template <int I>
  REPARAM_HD auto& rows_source() {
    if constexpr (Pass::operand(I).drawable) return drawable_source[I];
    else return source[I];
  }

  template <int I>
  REPARAM_HD void load() {
    if constexpr (I == kFactor) load_shared<I>();
    else if constexpr (Pass::spec().reads[I]) load_operand<I>();
  }

  template <int I>
  REPARAM_HD void load_shared() {
    const int64_t at = position.at[I][0], d = call.extent[Pass::operand(I).symbol[0]];
    if (position.loaded[I] == at) return;
    position.loaded[I] = at;
    T* elements = reinterpret_cast<T*>(buffer[I]);
    load_factor(elements, reinterpret_cast<const T*>(call.operand[I].data) + at, call.operand[I], d);
    factor = share<V>(d, elements);
  }

  REPARAM_HD OuterBlock<V> outer_block() const {
    return {reinterpret_cast<T*>(buffer[kOuter]), call.extent[Pass::operand(kOuter).symbol[0]]};
  }

  template <int I>
  REPARAM_HD void load_operand() {
    constexpr OperandSpec spec = Pass::operand(I);
    const OperandData& operand = call.operand[I];
    const Places places = placed(I);
    const int64_t* at = places.at;
    const bool same_event = places.same_event();
    LanesWith<V, uint64_t> stream{};
    if constexpr (spec.drawable)
      if (operand.drawn) stream = gather<LanesWith<V, uint64_t>>(reinterpret_cast<const uint64_t*>(operand.data), at);
    if constexpr (spec.kind == Kind::rows) {
      rows_source<I>() = {reinterpret_cast<const T*>(operand.data),
                          places,
                          {operand.event_stride[0], operand.event_stride[1]},
                          call.extent[spec.symbol[1]],
                          reinterpret_cast<V*>(buffer[I]),
                          operand.drawn,
                          draw_key(call),
                          stream};
    } else {
      auto* to = reinterpret_cast<Value<I>*>(buffer[I]);
      const auto* data = reinterpret_cast<const Element<I>*>(operand.data);
      if (same_event && position.loaded[I] == at[0]) return;
      position.loaded[I] = same_event ? at[0] : kNotLoaded;
      if constexpr (spec.drawable)
        if (operand.drawn) {
          draw_row(draw_key(call), stream, 0, spec.kind == Kind::scalar ? 1 : call.extent[spec.symbol[0]], to);
          return;
        }
      if constexpr (spec.kind == Kind::scalar) {
        if (position.one_row && step(I) == 1 && position.count == W) *to = load_unaligned<Value<I>>(data + at[0]);
        else *to = gather<Value<I>>(data, at);
      } else if constexpr (spec.kind == Kind::vector) {
        const int64_t n = call.extent[spec.symbol[0]];
        load_run(to, data, places, n, operand.event_stride[0], n);
        if (places.step == n && remaining > W) fetch_run_ahead(data + at[0] + W * n, W * n);
      } else if constexpr (spec.kind == Kind::packed) {
        const int64_t n = triangle(call.extent[spec.symbol[0]]);
        load_run(to, data, places, n, operand.event_stride[0], n);
      } else if (operand.packed) {
        const int64_t n = triangle(call.extent[spec.symbol[0]]);
        load_run(to, data, places, n, operand.event_stride[0], n);
      } else {
        load_matrices<I>(Tril<V>{to}, data, places, call.extent[spec.symbol[0]]);
      }
    }
  }

  template <int I>
  REPARAM_HD void load_matrices(Tril<V> to, const T* data, const Places& places, int64_t d) {
    const Route& route = routes[I];
    load_lower(to, dense, data, places, route.crowded, d, call.operand[I].event_stride);
    if (route.fetched_ahead && position.one_row && remaining > W) fetch_ahead<W>(data + places.at[0] + W * d * d, d);
  }

  template <int I>
  REPARAM_HD void store_matrices(T* data, const Places& places, Tril<V> from, int64_t d, bool symmetric) {
    const Route& route = routes[I];
    const int64_t* stride = call.operand[I].event_stride;
    if (!route.pitch) {
      store_lower(data, places, dense, from, route.crowded, d, stride, symmetric);
      return;
    }
    int64_t stage_at[W];
    for (int lane = 0; lane < W; ++lane) stage_at[lane] = lane * route.pitch;
    store_lower(stage, {stage_at, route.pitch}, dense, from, route.crowded, d, stride, symmetric);
    if (position.one_row && route.pitch == d * d) {
      stream(data + places.at[0], stage, position.count * d * d);
      return;
    }
    for (int lane = 0; lane < position.count; ++lane) stream(data + places.at[lane], stage + stage_at[lane], d * d);
  }

  template <int I>
  REPARAM_HD void store() {
    constexpr OperandSpec spec = Pass::operand(I);
    const OperandData& operand = call.operand[I];
    if (!operand.data) return;
    const Places places = placed(I);
    const int64_t* at = places.at;
    auto* data = reinterpret_cast<Element<I>*>(operand.data);
    auto* from = reinterpret_cast<Value<I>*>(buffer[I]);
    if constexpr (spec.kind == Kind::scalar) {
      if constexpr (W > 1)
        if (places.step == 1) {
          const auto values = convert<Element<I>>(*from);
          __builtin_memcpy(data + at[0], &values, sizeof values);
          return;
        }
      scatter(data, at, *from);
    } else if constexpr (spec.kind == Kind::vector || spec.kind == Kind::packed) {
      const int64_t n = packed_values(spec, call.extent);
      store_run(data, places, from, n, operand.event_stride[0]);
    } else if (operand.packed) {
      store_run(data, places, from, packed_values(spec, call.extent), operand.event_stride[0]);
    } else {
      store_matrices<I>(data, places, Tril<V>{from}, call.extent[spec.symbol[0]], spec.kind == Kind::symmetric);
    }
  }

  // Adds the lanes of this pack, terms `term`, `term` + 1, ... of a block, to the 8 partial sums of each value.
  template <int I>
  REPARAM_HD void accumulate() {
    V* from = reinterpret_cast<V*>(buffer[I]);
    T* sum = sums[I];
    const int64_t n = packed_values(Pass::operand(I), call.extent);
    for (int64_t j = 0; j < n; ++j, sum += kSums) {
      if constexpr (W > 1)
        for (int lane = position.count; lane < W; ++lane) from[j].set(lane, T(0));
      if constexpr (W < kSums) {
        T* part = sum + term % kSums;
        const V total = load_unaligned<V>(part) + from[j];
        __builtin_memcpy(part, &total, sizeof total);
      } else {
        Eight<T> total = Eight<T>::load(sum);
        for (int k = 0; k < W; k += kSums) total = total + Eight<T>::load(reinterpret_cast<const T*>(from + j) + k);
        total.store(sum);
      }
    }
  }

  // The sums of block `block` of the range, of `terms` terms.
  template <int I>
  REPARAM_HD void join(const Partials& partials, int64_t block, int64_t terms) {
    if (!Pass::can_reduce(I) || !call.operand[I].reduced || !call.operand[I].data) return;
    T* to = reinterpret_cast<T*>(partials.first[I] + block * partials.block_bytes);
    if constexpr (I == kOuter) {
      outer_block().sum(terms, to);
      return;
    }
    const int64_t n = packed_values(Pass::operand(I), call.extent);
    for (int64_t j = 0; j < n; ++j) to[j] = Eight<T>::load(sums[I] + j * kSums).joined();
  }

  template <int I>
  REPARAM_HD auto view() {
    constexpr OperandSpec spec = Pass::operand(I);
    constexpr bool writes = Pass::spec().writes[I];
    if constexpr (I == kFactor) {
      return factor;
    } else if constexpr (I == kOuter) {
      return outer_block().pack(term, call.operand[I].data != nullptr);
    } else if constexpr (spec.kind == Kind::rows) {
      return Rows<V, RowSource<V, spec.drawable>>{&rows_source<I>()};
    } else {
      return view_of<spec, writes, Value<I>>(reinterpret_cast<Value<I>*>(buffer[I]), call.operand[I].data != nullptr);
    }
  }

  template <int I>
  REPARAM_HD void begin() {
    if (!Pass::can_reduce(I) || I == kOuter || !call.operand[I].reduced) return;
    const int64_t n = packed_values(Pass::operand(I), call.extent) * kSums;
    for (int64_t j = 0; j < n; ++j) sums[I][j] = T(0);
  }

  template <int I>
  REPARAM_HD void put(bool reduce) {
    if constexpr (Pass::spec().writes[I] && I != kOuter) {
      if constexpr (Pass::can_reduce(I))
        if (call.operand[I].reduced) {
          if (reduce && call.operand[I].data) accumulate<I>();
          return;
        }
      store<I>();
    }
  }

  template <int... I>
  REPARAM_HD void run(int64_t first, int64_t end, const Partials* partials, Indices<I...>) {
    const bool reduce = partials != nullptr, wants_values = any_value_wanted<Op, kVjp>(call);
    const int64_t size = reduce ? kBlockTerms : end - first;
    position.seek(call, first);
    for (int64_t block = 0; first < end; first += size, ++block) {
      const int64_t stop = first + size < end ? first + size : end;
      if (reduce) (begin<I>(), ...);
      for (int64_t event = first; event < stop; event += W) {
        term = event - first, remaining = stop - event;
        position.place(call, remaining);
        (load<I>(), ...);
        this->compute(wants_values);
        (put<I>(reduce), ...);
      }
      if (reduce) (join<I>(*partials, block, stop - first), ...);
    }
    end_streams();
  }
};

template <class Op, class T, bool kVjp, class N, bool kShared>
REPARAM_HD auto make_pack(const Call& call, const Attributes<Op>& attributes, char* arena) {
  using P = Pack<Op, T, kVjp, N, kShared>;
  P pack{{}, call, attributes.value, {}, {}, {}, {}, nullptr, nullptr, nullptr, {}, {}, {}, 0, 0};
  P::lay_out(call, &pack, arena);
  return pack;
}

template <class Op, class T, bool kVjp, class N>
REPARAM_HD void run_events(const Call& call, const double* given, int64_t begin, int64_t end, char* arena,
                           const Partials* partials) {
  const Attributes<Op> attributes(given);
  if constexpr (is_elementwise<Op, kVjp>())
    if (!partials) {
      Elementwise<Op, T, kVjp> elementwise{call, attributes.value, {}, {}, {}};
      elementwise.run(begin, end);
      return;
    }
  if constexpr (shares_factor<Op, T>()) {
    const int64_t run = shared_run<Op, T, kVjp>(call);
    if (run && (!partials || begin / run == (end - 1) / run)) {
      auto pack = make_pack<Op, T, kVjp, N, true>(call, attributes, arena);
      for (int64_t first = begin, stop; first < end; first = stop) {
        stop = (first / run + 1) * run < end ? (first / run + 1) * run : end;
        pack.run(first, stop, partials, indices<pack.kCount>{});
      }
      return;
    }
  }
  auto pack = make_pack<Op, T, kVjp, N, false>(call, attributes, arena);
  pack.run(begin, end, partials, indices<pack.kCount>{});
}

// Bytes that a range of events needs for itself.
template <class Op, class T, bool kVjp>
static int64_t arena_bytes(const Call& call) {
  const int64_t bytes = Pack<Op, T, kVjp, Dynamic, false>::lay_out(call, nullptr, nullptr);
  if constexpr (shares_factor<Op, T>()) {
    const int64_t shared = Pack<Op, T, kVjp, Dynamic, true>::lay_out(call, nullptr, nullptr);
    return shared > bytes ? shared : bytes;
  }
  return bytes;
}

}  // namespace reparam::REPARAM_ARCH
