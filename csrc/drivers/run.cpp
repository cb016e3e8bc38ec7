// SPDX-License-Identifier: MIT
#include "run.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "plan.hpp"
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

constexpr int64_t kRun = 64;  // events that take a matrix together before the next matrix comes

// Whether the matrices that a pass reads, if any, are the same along a dim.
bool matrices_stay(const Call& call, const PassSpec& pass, int dim) {
  bool found = false;
  for (int i = 0; i < pass.count; ++i) {
    if (!pass.reads[i] || !is_matrix(pass.operand[i])) continue;
    if (call.operand[i].batch_stride[dim] != 0) return false;
    found = true;
  }
  return found;
}

// The long dim over which matrices stay though it is not the innermost: n values under each of K factors, say. -1 where
// there is none, or where it would not pay to walk it before the others: small matrices (below d = 16, measured) are
// quickly read again, and each event's own vectors are walked in larger steps.
int shared_dim(const Call& call, const PassSpec& pass) {
  const int last = call.rank - 1;
  if (call.rank < 2 || call.rank == kMaxRank || matrices_stay(call, pass, last)) return -1;
  for (int dim = last - 1; dim >= 0; --dim) {
    if (call.shape[dim] < kRun || !matrices_stay(call, pass, dim)) continue;
    bool large = false, own_vectors = false;
    for (int i = 0; i < pass.count; ++i) {
      const int64_t* stride = call.operand[i].batch_stride;
      large = large || (is_matrix(pass.operand[i]) && call.extent[pass.operand[i].symbol[0]] >= 16);
      own_vectors = own_vectors || (pass.operand[i].kind == Kind::vector && stride[dim] != 0 && stride[last] != 0);
    }
    if (large || !own_vectors) return dim;
  }
  return -1;
}

struct Plan {
  const OpKernels& op;
  const PassSpec& pass;
  const Kernel& kernel;
  bool is_double;
  int threads;
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

template <class T>
void write_event(OperandSpec spec, const OperandData& operand, const int64_t* extent, int64_t at, const double* sum) {
  const bool matrix = is_matrix(spec);
  const int64_t n = matrix ? extent[spec.symbol[0]] : 1;
  for (int64_t row = 0; row < n; ++row)
    for (int64_t column = 0; column < (matrix ? row + 1 : values_of(spec, extent)); ++column)
      write_entry(spec, operand, at, row, column, static_cast<T>(*sum++));
}

void map_events(const Plan& plan, const Call& call) {
  struct Context {
    const Plan& plan;
    const Call& call;
    int64_t events, chunk, arena;
  } context{plan, call, product(call.shape, call.rank), 0, plan.kernel.arena_bytes(call)};
  const auto body = [](void* data, int64_t k) {
    const Context& c = *static_cast<Context*>(data);
    const FloatEnvironment environment;
    const int64_t begin = k * c.chunk, end = begin + c.chunk < c.events ? begin + c.chunk : c.events;
    const Arena arena(c.arena);
    c.plan.kernel.run(c.call, begin, end, arena.data(), nullptr);
  };
  const int threads = plan.threads_for(context.events);
  context.chunk = plan.chunk_events(threads == 1 ? kSerialChunkNanoseconds : kChunkNanoseconds);
  if (context.events) parallel_for((context.events + context.chunk - 1) / context.chunk, threads, body, &context);
}

// All events, those that share matrices in runs: n events under each of K matrices are walked [n / 64][K][64], so that
// what they read otherwise stays in the cache between one matrix and the next.
void map_runs(const Plan& plan, const Call& call) {
  const int dim = shared_dim(call, plan.pass), operands = plan.pass.count;
  if (dim < 0) {
    map_events(plan, call);
    return;
  }
  const int64_t whole = call.shape[dim] / kRun * kRun;
  Call runs = call, rest = call;
  set_dim(runs, runs.rank++, call, dim, operands);
  runs.shape[dim] = whole / kRun, runs.shape[call.rank] = kRun, rest.shape[dim] = call.shape[dim] - whole;
  for (int i = 0; i < operands; ++i) {
    OperandData& operand = rest.operand[i];
    const int64_t item =
        operand.drawn ? item_size(Item::u8, true) : item_size(plan.pass.operand[i].item, plan.is_double);
    runs.operand[i].batch_stride[dim] *= kRun;
    if (operand.data) operand.data += whole * operand.batch_stride[dim] * item;
  }
  map_events(plan, runs);
  map_events(plan, rest);
}

// Sums the reduced outputs of a part over its last dims.
template <class T>
void reduce_events(const Plan& plan, const Part& part) {
  const Call& call = part.call;
  Blocks blocks = blocks_of(part, plan.pass);
  const int64_t kept = product(call.shape, part.kept_rank), total = kept * blocks.count, values = blocks.values;
  const int64_t most = kRoundBytes / (values * static_cast<int64_t>(sizeof(T)) + 1);
  const int64_t least = int64_t{4} * plan.threads, round = most < least ? least : most;
  std::vector<T> partial(static_cast<size_t>((total < round ? total : round) * values));
  std::vector<double> sum(static_cast<size_t>(values));
  blocks.partial = reinterpret_cast<char*>(partial.data());

  struct Context {
    const Plan& plan;
    const Call& call;
    const Blocks& blocks;
    int64_t arena, count, group;  // blocks of this round, and of a chunk
  } context{plan, call, blocks, plan.kernel.arena_bytes(call), 0, 1};
  const auto body = [](void* data, int64_t k) {
    const Context& c = *static_cast<Context*>(data);
    const FloatEnvironment environment;
    const Arena arena(c.arena);
    const int64_t first = c.blocks.first, per_event = c.blocks.count;
    const int64_t end = first + ((k + 1) * c.group < c.count ? (k + 1) * c.group : c.count);
    for (int64_t block = first + k * c.group, next; block < end; block = next) {  // blocks of one kept event
      next = (block / per_event + 1) * per_event < end ? (block / per_event + 1) * per_event : end;
      const Partials sums = c.blocks.template sums<T>(block);
      c.plan.kernel.run(c.call, c.blocks.begin(block), c.blocks.end(next - 1), arena.data(), &sums);
    }
  };
  const auto finish = [&](int64_t event) {
    for (int i = 0; i < plan.pass.count; ++i) {
      if (!call.operand[i].reduced) continue;
      const int64_t at = kept_offset(call, part.kept_rank, call.operand[i], event);
      write_event<T>(plan.pass.operand[i], call.operand[i], call.extent, at, sum.data() + blocks.offset[i]);
    }
    std::fill(sum.begin(), sum.end(), 0.0);
  };
  if (blocks.terms == 0)
    for (int64_t event = 0; event < kept; ++event) finish(event);
  const int64_t block_terms = blocks.terms < kBlockTerms ? blocks.terms : kBlockTerms;
  const double block_nanoseconds = plan.event_nanoseconds * static_cast<double>(block_terms) + 100;
  const int threads = block_nanoseconds * static_cast<double>(total) < kSerialNanoseconds ? 1 : plan.threads;
  const double chunk_nanoseconds = threads == 1 ? kSerialChunkNanoseconds : kChunkNanoseconds;
  context.group = static_cast<int64_t>(chunk_nanoseconds / block_nanoseconds) + 1;
  for (; blocks.first < total; blocks.first += context.count) {
    context.count = total - blocks.first < round ? total - blocks.first : round;
    parallel_for((context.count + context.group - 1) / context.group, threads, body, &context);
    for (int64_t b = 0; b < context.count; ++b) {
      for (int64_t j = 0; j < values; ++j)
        sum[static_cast<size_t>(j)] += static_cast<double>(partial[static_cast<size_t>(b * values + j)]);
      if ((blocks.first + b + 1) % blocks.count == 0) finish((blocks.first + b) / blocks.count);
    }
  }
}

// Whether the matrices of an output would push out what the caches hold. (What the C library calls the last cache may
// be that of a whole socket, ten times a core's share.)
bool is_large(const Call& call, OperandSpec spec, bool is_double) {
  const double events = static_cast<double>(product(call.shape, call.rank));
  return events * static_cast<double>(values_of(spec, call.extent)) * (is_double ? 16 : 8) > kCachedBytes;
}

}  // namespace

void run_on_cpu(const OpKernels& op, bool vjp, bool is_double, Call call, int threads) {
  const FloatEnvironment environment;  // also for the sums of blocks on this thread
  const PassSpec& pass = op.pass[vjp];
  const Kernel& kernel = op.kernel[vjp][is_double];
  merge_dims(call, pass.count);
  double values = 0, largest = 0;
  for (int i = 0; i < pass.count; ++i) {
    if (pass.operand[i].kind == Kind::rows) continue;
    const double count = static_cast<double>(values_of(pass.operand[i], call.extent));
    largest += count;
    const bool moved = call.rank == 0 || call.operand[i].batch_stride[call.rank - 1] != 0 || call.operand[i].drawn;
    if (moved) values += count * (call.operand[i].drawn ? 6 : 1);
  }
  for (int k = 0; k < pass.symbols; ++k) largest = std::max(largest, static_cast<double>(call.extent[k]));
  if (largest > 0x1p48) throw std::bad_alloc();  // no memory holds it, nor 63 bits the bytes of its scratch
  // Rough rates of one core: a fifth of a nanosecond a value moved, 1.2 one drawn, 24 operations a nanosecond, the vjp
  // twice the forward.
  const double nanoseconds = 0.2 * values + op.flops(call.extent) * (vjp ? 2 : 1) / 24 + 0.1;
  const Plan plan{op, pass, kernel, is_double, threads, nanoseconds};

  for (Part& part : parts_of(call, pass)) {
    if (part.kept_rank < 0) {
      for (int i = 0; i < pass.count; ++i)
        part.call.operand[i].large = pass.writes[i] && is_large(part.call, pass.operand[i], is_double);
      map_runs(plan, part.call);
    } else if (is_double) {
      reduce_events<double>(plan, part);
    } else {
      reduce_events<float>(plan, part);
    }
  }
}

}  // namespace reparam
