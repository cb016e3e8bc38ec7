// SPDX-License-Identifier: MIT
// A small thread pool: created when first used, parked without spinning, reset in a forked child, leaked at exit (a
// static condition variable with a parked worker hangs the process at exit). No OpenMP: a process that forks after
// using libgomp hangs in the child. Work is cut into fixed chunks by the caller, so results never depend on the
// threads.
#pragma once
#include <cstdint>

namespace reparam {

// Calls body(context, chunk) once for each chunk in [0, chunks), on up to `threads` threads, the caller among them.
// While another thread's job holds the pool, or inside a chunk, the chunks run on the caller alone. The first exception
// of a body is rethrown in the caller when all chunks that had begun are done; chunks not begun by then are skipped.
void parallel_for(int64_t chunks, int threads, void (*body)(void* context, int64_t chunk), void* context);

// The hook runs before each chunk that a calling thread takes, and ends the call by an exception.
void call_before_chunks(void (*hook)());

struct ThreadStats {
  int workers;            // threads that the pool has started in this process
  int64_t jobs;           // calls that were shared out
  int most_threads_seen;  // most threads that took chunks of one job
};
ThreadStats thread_stats();

}  // namespace reparam
