// SPDX-License-Identifier: MIT
#include "threads.hpp"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace reparam {
namespace {

struct Job {
  void (*body)(void*, int64_t);
  void* context;
  int64_t chunks;
  std::atomic<int64_t> next{0};
  std::atomic<int> threads_seen{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  // `before_chunk` may be null.
  void work(void (*before_chunk)()) noexcept {
    bool seen = false;
    for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      if (!seen) threads_seen.fetch_add(1, std::memory_order_relaxed);
      seen = true;
      try {
        if (before_chunk) before_chunk();
        body(context, chunk);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(chunks, std::memory_order_relaxed);
      }
    }
  }
};

thread_local bool inside_pool = false;  // in a worker, or a caller whose job runs
std::atomic<int> forks{0};              // that lie between this process and the first one
std::atomic<void (*)()> on_chunk{nullptr};

struct InsidePool {
  InsidePool() { inside_pool = true; }
  ~InsidePool() { inside_pool = false; }
};

// Signals are the program's: its own threads handle them, or wait for them.
void block_signals() {
  sigset_t set;
  sigfillset(&set);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&set, fault);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

class Pool {
 public:
  std::mutex owner;  // held by the one caller whose job runs

  void run(Job& job, int threads) {
    const int forks_before = forks;
    std::unique_lock lock(mutex_);
    while (workers_ < threads - 1 && start_worker()) ++workers_;
    job_ = &job;
    wanted_ = threads - 1;
    running_ = 0;
    ++generation_;
    lock.unlock();
    wake_.notify_all();
    job.work(on_chunk);
    // The hook runs signal handlers, and one may fork. Here in the child no worker is left to end its chunk.
    if (forks != forks_before)
      throw std::runtime_error("a signal handler forked inside this call: in the child its result is incomplete");
    lock.lock();
    job_ = nullptr;  // a worker that wakes only now finds nothing to do
    done_.wait(lock, [this] { return running_ == 0; });
    ++jobs_;
    if (job.threads_seen > most_seen_) most_seen_ = job.threads_seen;
  }

  ThreadStats stats() {
    const std::lock_guard lock(mutex_);
    return {workers_, jobs_, most_seen_};
  }

 private:
  // A process that may have no more threads computes on those it has.
  bool start_worker() try {
    std::thread([this, number = workers_] { park(number); }).detach();
    return true;
  } catch (const std::exception&) {  // system_error or bad_alloc
    return false;
  }

  void park(int number) {
    block_signals();
    inside_pool = true;
    int64_t done_generation = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != done_generation; });
      done_generation = generation_;
      if (!job_ || number >= wanted_) continue;
      Job& job = *job_;
      ++running_;
      lock.unlock();
      job.work(nullptr);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int workers_ = 0, wanted_ = 0, running_ = 0, most_seen_ = 0;
  int64_t generation_ = 0, jobs_ = 0;
};

std::atomic<Pool*> pool{nullptr};

// The child of a fork has no workers, and the parent's locks may be held by threads that are gone: it starts afresh.
void forget_pool() {
  pool.store(nullptr);
  inside_pool = false;
  ++forks;
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget_pool);

Pool& the_pool() {
  Pool* current = pool.load(std::memory_order_acquire);
  if (current) return *current;
  Pool* fresh = new Pool;
  if (pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *current;
}

}  // namespace

void parallel_for(int64_t chunks, int threads, void (*body)(void*, int64_t), void* context) {
  Job job{body, context, chunks, {}, {}, {}, {}};
  if (chunks < threads) threads = static_cast<int>(chunks);
  if (threads <= 1 || inside_pool) {
    job.work(inside_pool ? nullptr : on_chunk.load());
  } else {
    Pool& shared = the_pool();
    const InsidePool inside;  // without the pool too: it may be free by the time that a chunk calls
    if (std::unique_lock owner(shared.owner, std::try_to_lock); owner.owns_lock()) shared.run(job, threads);
    else job.work(on_chunk);
  }
  if (job.error) std::rethrow_exception(job.error);
}

void call_before_chunks(void (*hook)()) { on_chunk = hook; }

ThreadStats thread_stats() { return the_pool().stats(); }

}  // namespace reparam
