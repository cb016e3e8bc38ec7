// SPDX-License-Identifier: MIT
#include "run.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "threads.hpp"

namespace reparam {
namespace {

constexpr double kSerialNanoseconds = 80e3;  // below this much work a second thread costs more than it brings
constexpr double kChunkNanoseconds = 20e3;
constexpr double kSerialChunkNanoseconds = 1e6;  // Ctrl-C is seen between chunks
constexpr double kCachedBytes = 16e6;
constexpr int64_t kRoundBytes = 1 << 20;  // partial sums held at once by a reduction

// Kernels run under the default rounding mode with subnormals, whatever the caller has set.
class FloatEnvironment {
 public:
#if defined(__x86_64__)
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FloatEnvironment() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
  }
  ~FloatEnvironment() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

constexpr int64_t kKeptBytes = 4 << 20;

// Scratch of one thread, kept between chunks and calls unless it is large.
class Arena {
 public:
  explicit Arena(int64_t bytes) {
    if (bytes <= size) return;
    memory.reset();
    size = 0;
    memory.reset(static_cast<char*>(::operator new(static_cast<size_t>(bytes), std::align_val_t{64})));
    size = bytes;
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    if (size <= kKeptBytes) return;
    memory.reset();
    size = 0;
  }
  char* data() const { return memory.get(); }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  static thread_local std::unique_ptr<char, Free> memory;
  static thread_local int64_t size;
};
thread_local std::unique_ptr<char, Arena::Free> Arena::memory;
thread_local int64_t Arena::size = 0;

int64_t product(const int64_t* shape, int rank) {
  int64_t n = 1;
  for (int k = 0; k < rank; ++k) n *= shape[k];
  return n;
}

void set_dim(Call& to, int at, const Call& from, int dim, int operands) {
  to.shape[at] = from.shape[dim];
  for (int i = 0; i < operands; ++i) to.operand[i].batch_stride[at] = from.operand[i].batch_stride[dim];
}

// Drops dims of length 1 and joins neighbours that every operand walks as one.
void merge_dims(Call& call, int operands) {
  int rank = 0;
  for (int k = 0; k < call.rank; ++k) {
    if (call.shape[k] == 1) continue;
    bool joins = rank > 0;
    for (int i = 0; i < operands && joins; ++i) {
      const int64_t* stride = call.operand[i].batch_stride;
      joins = !call.operand[i].data || stride[rank - 1] == stride[k] * call.shape[k];
    }
    const int64_t outer = joins ? call.shape[rank - 1] : 1;
    if (!joins) ++rank;
    set_dim(call, rank - 1, call, k, operands);
    call.shape[rank - 1] *= outer;
  }
  call.rank = rank;
}

struct Plan {
  const OpKernels& op;
  const PassSpec& pass;
  const Kernel& kernel;
  bool is_double;
  int threads;
  int64_t arena;
  double event_nanoseconds;

  int threads_for(int64_t events) const {
    return event_nanoseconds * static_cast<double>(events) < kSerialNanoseconds ? 1 : threads;
  }
  // Events that take about this long, in whole packs.
  int64_t chunk_events(double nanoseconds) const {
    const int64_t lanes = op.lanes[is_double], packs = static_cast<int64_t>(nanoseconds / event_nanoseconds) / lanes;
    return lanes * (packs < 1 ? 1 : packs);
  }
};

int64_t values_of(OperandSpec spec, const int64_t* extent) {
  const int64_t n = spec.symbol[0] < 0 ? 1 : extent[spec.symbol[0]];
  return spec.kind == Kind::scalar || spec.kind == Kind::vector ? n : n * (n + 1) / 2;
}

template <class T>
void write_event(OperandSpec spec, const OperandData& operand, const int64_t* extent, int64_t at, const double* sum) {
  T* to = reinterpret_cast<T*>(operand.data) + at;
  if (spec.kind == Kind::scalar || spec.kind == Kind::vector || spec.kind == Kind::packed || operand.packed) {
    const int64_t n = values_of(spec, extent);
    for (int64_t j = 0; j < n; ++j) to[j * operand.event_stride[0]] = static_cast<T>(sum[j]);
    return;
  }
  const int64_t d = extent[spec.symbol[0]];
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < d; ++j) {
      const int64_t low = i < j ? i : j, high = i < j ? j : i;
      const bool written = j <= i || spec.kind == Kind::symmetric;
      to[i * operand.event_stride[0] + j * operand.event_stride[1]] =
          written ? static_cast<T>(sum[high * (high + 1) / 2 + low]) : T(0);
    }
}

void map_events(const Plan& plan, const Call& call) {
  struct Context {
    const Plan& plan;
    const Call& call;
    int64_t events, chunk;
  } context{plan, call, product(call.shape, call.rank), 0};
  const auto body = [](void* data, int64_t k) {
    const Context& c = *static_cast<Context*>(data);
    const FloatEnvironment environment;
    const int64_t begin = k * c.chunk, end = begin + c.chunk < c.events ? begin + c.chunk : c.events;
    const Arena arena(c.plan.arena);
    c.plan.kernel.run(c.call, begin, end, arena.data(), nullptr);
  };
  const int threads = plan.threads_for(context.events);
  context.chunk = plan.chunk_events(threads == 1 ? kSerialChunkNanoseconds : kChunkNanoseconds);
  if (context.events) parallel_for((context.events + context.chunk - 1) / context.chunk, threads, body, &context);
}

// Sums the reduced outputs of `call` over its last dims, `terms` events for each of the `kept` leading ones.
template <class T>
void reduce_events(const Plan& plan, const Call& call, int kept_rank) {
  const int operands = plan.pass.count;
  const int64_t kept = product(call.shape, kept_rank);
  const int64_t terms = product(call.shape + kept_rank, call.rank - kept_rank);
  const int64_t blocks = (terms + kBlockTerms - 1) / kBlockTerms;
  int64_t offset[kMaxOperands + 1] = {};
  for (int i = 0; i < operands; ++i)
    offset[i + 1] = offset[i] + (call.operand[i].reduced ? values_of(plan.pass.operand[i], call.extent) : 0);
  const int64_t values = offset[operands], most = kRoundBytes / (values * static_cast<int64_t>(sizeof(T)) + 1);
  const int64_t least = int64_t{4} * plan.threads, round = most < least ? least : most;
  const int64_t total = kept * blocks;
  std::vector<T> partial(static_cast<size_t>((total < round ? total : round) * values));
  std::vector<double> sum(static_cast<size_t>(values));

  struct Context {
    const Plan& plan;
    const Call& call;
    int64_t first, count, group, blocks, terms, values;
    const int64_t* offset;
    T* partial;
  } context{plan, call, 0, 0, 1, blocks, terms, values, offset, partial.data()};
  const auto body = [](void* data, int64_t k) {
    const Context& c = *static_cast<Context*>(data);
    const FloatEnvironment environment;
    const Arena arena(c.plan.arena);
    for (int64_t b = k * c.group; b < (k + 1) * c.group && b < c.count; ++b) {
      const int64_t block = c.first + b, begin = block % c.blocks * kBlockTerms;
      const int64_t end = begin + kBlockTerms < c.terms ? begin + kBlockTerms : c.terms;
      void* sums[kMaxOperands];
      for (int i = 0; i < c.plan.pass.count; ++i) sums[i] = c.partial + b * c.values + c.offset[i];
      const int64_t base = block / c.blocks * c.terms;
      c.plan.kernel.run(c.call, base + begin, base + end, arena.data(), sums);
    }
  };
  const auto finish = [&](int64_t event) {
    for (int i = 0; i < operands; ++i) {
      if (!call.operand[i].reduced) continue;
      int64_t at = 0, rest = event;
      for (int k = kept_rank - 1; k >= 0; --k) {
        at += rest % call.shape[k] * call.operand[i].batch_stride[k];
        rest /= call.shape[k];
      }
      write_event<T>(plan.pass.operand[i], call.operand[i], call.extent, at, sum.data() + offset[i]);
    }
    std::fill(sum.begin(), sum.end(), 0.0);
  };
  if (terms == 0)
    for (int64_t event = 0; event < kept; ++event) finish(event);
  const int64_t block_terms = terms < kBlockTerms ? terms : kBlockTerms;
  const double block_nanoseconds = plan.event_nanoseconds * static_cast<double>(block_terms) + 100;
  context.group = static_cast<int64_t>(kChunkNanoseconds / block_nanoseconds) + 1;
  const int threads = block_nanoseconds * static_cast<double>(total) < kSerialNanoseconds ? 1 : plan.threads;
  for (context.first = 0; context.first < total; context.first += context.count) {
    context.count = total - context.first < round ? total - context.first : round;
    parallel_for((context.count + context.group - 1) / context.group, threads, body, &context);
    for (int64_t b = 0; b < context.count; ++b) {
      for (int64_t j = 0; j < values; ++j)
        sum[static_cast<size_t>(j)] += static_cast<double>(partial[static_cast<size_t>(b * values + j)]);
      if ((context.first + b + 1) % blocks == 0) finish((context.first + b) / blocks);
    }
  }
}

// Whether the matrices of an output would push out what the caches hold. (What the C library calls the last cache may
// be that of a whole socket, ten times a core's share.)
bool is_large(const Call& call, OperandSpec spec, bool is_double) {
  const double events = static_cast<double>(product(call.shape, call.rank));
  return events * static_cast<double>(values_of(spec, call.extent)) * (is_double ? 16 : 8) > kCachedBytes;
}

// Which dims output i is summed over, as a bit set.
unsigned reduced_dims(const Call& call, int i) {
  unsigned dims = 0;
  for (int k = 0; k < call.rank; ++k)
    if (call.shape[k] != 1 && call.operand[i].batch_stride[k] == 0) dims |= 1u << k;
  return dims;
}

}  // namespace

void run_on_cpu(const OpKernels& op, bool vjp, bool is_double, Call call, int threads) {
  const FloatEnvironment environment;  // also for the sums of blocks on this thread
  const PassSpec& pass = op.pass[vjp];
  const Kernel& kernel = op.kernel[vjp][is_double];
  merge_dims(call, pass.count);
  double values = 0;
  for (int i = 0; i < pass.count; ++i)
    if (pass.operand[i].kind != Kind::rows)
      values += static_cast<double>(values_of(pass.operand[i], call.extent)) * (call.operand[i].drawn ? 6 : 1);
  double largest = values;
  for (int k = 0; k < pass.symbols; ++k) largest = std::max(largest, static_cast<double>(call.extent[k]));
  if (largest > 0x1p48) throw std::bad_alloc();  // no memory holds it, nor 63 bits the bytes of its scratch
  // Rough rates of one core: a fifth of a nanosecond a value moved, 1.2 one drawn, 24 operations a nanosecond, the vjp
  // twice the forward.
  const double nanoseconds = 0.2 * values + op.flops(call.extent) * (vjp ? 2 : 1) / 24 + 0.1;
  Plan plan{op, pass, kernel, is_double, threads, 0, nanoseconds};

  unsigned dims_of[kMaxOperands] = {}, groups[kMaxOperands] = {};
  int group_count = 0;
  for (int i = 0; i < pass.count; ++i) {
    if (!pass.writes[i] || !call.operand[i].data) continue;
    dims_of[i] = reduced_dims(call, i);
    bool known = dims_of[i] == 0;
    for (int g = 0; g < group_count; ++g) known = known || groups[g] == dims_of[i];
    if (!known) groups[group_count++] = dims_of[i];
  }
  if (group_count == 0) {
    for (int i = 0; i < pass.count; ++i)
      call.operand[i].large = pass.writes[i] && is_large(call, pass.operand[i], is_double);
    plan.arena = kernel.arena_bytes(call);
    map_events(plan, call);
    return;
  }
  // One run for each set of dims: its outputs are reduced, and the first run also stores the outputs that are not.
  for (int g = 0; g < group_count; ++g) {
    Call part = call;
    int kept_rank = 0;
    for (int k = 0; k < call.rank; ++k)
      if (!(groups[g] >> k & 1)) set_dim(part, kept_rank++, call, k, pass.count);
    for (int k = 0, at = kept_rank; k < call.rank; ++k)
      if (groups[g] >> k & 1) set_dim(part, at++, call, k, pass.count);
    for (int i = 0; i < pass.count; ++i) {
      if (!pass.writes[i]) continue;
      part.operand[i].reduced = part.operand[i].data && dims_of[i] == groups[g];
      if (!part.operand[i].reduced && (g > 0 || dims_of[i] != 0)) part.operand[i].data = nullptr;
    }
    plan.arena = kernel.arena_bytes(part);
    if (is_double) reduce_events<double>(plan, part, kept_rank);
    else reduce_events<float>(plan, part, kept_rank);
  }
}

}  // namespace reparam
