// SPDX-License-Identifier: MIT
// The pool of threads under many callers, without Python, for ThreadSanitizer to watch: jobs of any length, calls
// inside a job, errors of a body and of the hook, and an op whose events are shared out and summed.
//     pool [race]        with a planted bug that the sanitizer must find
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "drivers/run.hpp"
#include "drivers/threads.hpp"

namespace reparam::scalar {
extern const OpKernels normal_tril_log_prob_kernels;
}

namespace {

using namespace reparam;

constexpr int kCallers = 4, kJobs = 300;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::_Exit(1);
}

// What the workers have written is read by the caller, without another lock.
void each_chunk_runs_once(int caller) {
  for (int job = 0; job < kJobs; ++job) {
    std::vector<int> runs(static_cast<size_t>(job % 37));
    const auto body = [](void* context, int64_t k) { ++static_cast<int*>(context)[k]; };
    parallel_for(static_cast<int64_t>(runs.size()), 1 + (job + caller) % 5, body, runs.data());
    for (const int n : runs) require(n == 1, "each chunk runs once");
  }
}

void a_call_inside_a_job_runs_on_its_thread(int caller) {
  const auto body = [](void* context, int64_t k) {
    const auto inner = [](void* sum, int64_t j) { *static_cast<int64_t*>(sum) += j; };
    parallel_for(10, 4, inner, static_cast<int64_t*>(context) + k);
  };
  for (int job = 0; job < kJobs; ++job) {
    int64_t sum[8] = {};
    parallel_for(8, 2 + caller % 3, body, sum);
    for (const int64_t x : sum) require(x == 45, "the inner call is complete");
  }
}

// So it is where the outer job found the pool taken, and the inner one finds it free.
void a_call_inside_a_job_without_the_pool_runs_on_its_thread() {
  static std::atomic<bool> taken{false}, given_back{false};
  std::atomic<int> inner_begun{0};
  std::thread holder([&inner_begun] {
    const auto hold = [](void* begun, int64_t) {
      taken = true;
      while (!*static_cast<std::atomic<int>*>(begun)) std::this_thread::yield();
    };
    parallel_for(2, 2, hold, &inner_begun);
    given_back = true;
  });
  while (!taken) std::this_thread::yield();
  const auto body = [](void* begun, int64_t) {
    *static_cast<std::atomic<int>*>(begun) = 1;
    while (!given_back) std::this_thread::yield();
    std::thread::id caller = std::this_thread::get_id();
    const auto inner = [](void* id, int64_t) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));  // a worker had time to take the next chunk
      require(*static_cast<std::thread::id*>(id) == std::this_thread::get_id(), "the inner call is on its thread");
    };
    parallel_for(30, 4, inner, &caller);
  };
  parallel_for(2, 2, body, &inner_begun);
  holder.join();
}

// All threads are in a chunk when the first one throws.
void an_error_reaches_its_caller(int) {
  const auto body = [](void*, int64_t) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    throw std::runtime_error("body");
  };
  for (int job = 0; job < kJobs / 10; ++job) {
    bool caught = false;
    try {
      parallel_for(30, 4, body, nullptr);
    } catch (const std::runtime_error&) {
      caught = true;
    }
    require(caught, "an error of a body is thrown in the caller");
  }
}

// As Ctrl-C does: in one of the callers only, and in none of the workers.
thread_local int chunks_until_interrupt = 0;
void interrupt() {
  if (chunks_until_interrupt && --chunks_until_interrupt == 0) throw 1;
}
void an_interrupt_ends_a_job(int) {
  std::atomic<int64_t> ran{0};
  const auto body = [](void* context, int64_t) { ++*static_cast<std::atomic<int64_t>*>(context); };
  for (int job = 0; job < kJobs; ++job) {
    bool caught = false;
    chunks_until_interrupt = 1;
    try {
      parallel_for(100, 3, body, &ran);
    } catch (int) {
      caught = true;
    }
    // The workers may have been faster than the caller, which then took no chunk.
    require(caught || chunks_until_interrupt == 1, "the hook ends a job");
    chunks_until_interrupt = 0;
  }
}

constexpr int64_t kEvents = 3000, kSize = 9;

// Densities, their cotangents by value [kEvents, kSize], and those of loc and scale_tril summed over all events.
std::vector<double> densities_and_sums(int threads) {
  const OpKernels& op = scalar::normal_tril_log_prob_kernels;
  std::vector<double> value(kEvents * kSize), loc(kSize), scale(kSize * kSize), ones(kEvents, 1.0);
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<double>(i % 23) / 7;
  for (size_t i = 0; i < scale.size(); ++i) scale[i] = i % (kSize + 1) ? 0.1 : 1.5;
  std::vector<double> out(kEvents + kEvents * kSize + kSize + kSize * kSize);
  double* next = out.data();
  const auto operand = [](double* data, int64_t batch_stride, int64_t row, int64_t column) {
    OperandData made{.data = reinterpret_cast<char*>(data)};
    made.batch_stride[0] = batch_stride, made.event_stride[0] = row, made.event_stride[1] = column;
    return made;
  };
  Call call{.rank = 1, .shape = {kEvents}, .extent = {kSize}};
  call.operand[0] = operand(value.data(), kSize, 1, 0);
  call.operand[1] = operand(loc.data(), 0, 1, 0);
  call.operand[2] = operand(scale.data(), 0, kSize, 1);
  call.operand[3] = operand(next, 1, 0, 0);
  run_on_cpu(op, false, true, call, threads);
  OperandData* const cotangents = call.operand + op.pass[true].count - 3;
  call.operand[3] = operand(ones.data(), 1, 0, 0);
  cotangents[0] = operand(next += kEvents, kSize, 1, 0);
  cotangents[1] = operand(next += kEvents * kSize, 0, 1, 0);
  cotangents[2] = operand(next += kSize, 0, kSize, 1);
  run_on_cpu(op, true, true, call, threads);
  return out;
}

void an_op_has_the_bits_of_one_thread(int) {
  static const std::vector<double> expected = densities_and_sums(1);
  for (int job = 0; job < kJobs / 10; ++job)
    require(densities_and_sums(2 + job % 3) == expected, "threads do not change the bits");
}

void race() {
  int64_t counter = 0;
  const auto body = [](void* context, int64_t) { ++*static_cast<int64_t*>(context); };
  for (int job = 0; job < kJobs; ++job) parallel_for(1000, 4, body, &counter);
  std::printf("the planted race was not found, the counter is at %ld\n", long{counter});
}

}  // namespace

int main(int argc, char**) {
  call_before_chunks(interrupt);
  if (argc > 1) return race(), 0;
  a_call_inside_a_job_without_the_pool_runs_on_its_thread();
  void (*const tests[])(int) = {each_chunk_runs_once, a_call_inside_a_job_runs_on_its_thread,
                                an_error_reaches_its_caller, an_interrupt_ends_a_job, an_op_has_the_bits_of_one_thread};
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done) require(thread_stats().workers < 5, "a job starts no more workers than it may");
  });
  // Every caller goes through the tests from another one on, so that jobs of all kinds meet.
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller)
    callers.emplace_back([&, caller] {
      for (size_t k = 0; k < std::size(tests); ++k) tests[(k + static_cast<size_t>(caller)) % std::size(tests)](caller);
    });
  for (std::thread& caller : callers) caller.join();
  done = true;
  watcher.join();
  require(thread_stats().most_threads_seen > 1, "jobs were shared");
  std::printf("%d callers: nothing found, %ld jobs shared\n", kCallers, long{thread_stats().jobs});
}
