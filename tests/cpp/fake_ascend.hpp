// What the fake libascendcl has in use, and what the fake libhccl asks of it.
#pragma once

#include <atomic>
#include <cstddef>

struct FakeAscend {
  std::atomic<long> allocated{0};  // pieces of memory
  std::atomic<long> made{0};       // streams, events
};

extern "C" {
FakeAscend* fake_ascend();
/// Whether all these bytes are an NPU's.
bool fake_ascend_owns(const void* data, std::size_t bytes);
bool fake_ascend_aborted(void* stream);
/// The number of the NPU that is this thread's; -1: none.
int fake_ascend_current();
/// What aclGetRecentErrMsg says next in this thread.
void fake_ascend_says(const char* words);
/// Queues work.
void fake_ascend_queue(void* stream, void (*work)(void*), void* data);
}
