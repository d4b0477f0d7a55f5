#pragma once

#include <array>
#include <atomic>
#include <cstddef>

/// One of its devices, fake0 and fake1; a test may change it while it is in use.
struct FakeDevice {
  std::atomic<int> port_state{4};  ///< As of ibv_query_port: 4 active, 1 down.
  std::atomic<int> next_status{
      0};  ///< Not 0: so the next message ends, and its queue pair in error.
  std::atomic<bool> silent{false};  ///< What is sent vanishes, and nobody is told.
};

/// What the fake library (fake_verbs.cpp) counts, and what a test asks of it.
struct FakeVerbs {
  int alive = 0;              ///< Things made and not freed.
  int freed_too_early = 0;    ///< Things freed before what was made of them, or is sent from them.
  int cut_short = 0;          ///< Requests neither done nor flushed when their queue pair went.
  int fail_after = -1;        ///< So many more things are made, and none after them; -1: all are.
  int fail_sends_after = -1;  ///< So many more messages arrive, and none after them; -1: all do.
  bool no_dma_buf = false;    ///< The device registers none.
  std::atomic<int> dma_bufs{0};  ///< Registered so far.
  bool no_building = false;      ///< It has no queue pairs in which requests are built (ibv_wr_*).
  bool old_library = false;      ///< Its context is of the time before there was such a thing.
  bool corrupt = false;          ///< A bit of each message turns over on the way.
  bool nowhere = false;     ///< Messages complete and go nowhere: what is left is our own work.
  unsigned long sent = 0;   ///< Messages that completed well.
  unsigned long built = 0;  ///< Requests that were built in a queue pair.
  std::atomic<int> first_gid{0};  ///< GIDs of a lower index are empty.
  std::array<FakeDevice, 2> devices;

  /// Tells all who have opened the device of an event of port 1 (ibv_event_type).
  void (*raise)(std::size_t device, int event) = nullptr;
  /// Forces every queue pair of the device into error: what is posted to them is flushed.
  void (*force_errors)(std::size_t device) = nullptr;
  /// Whether any of these bytes is registered.
  bool (*registered)(const void* data, std::size_t size) = nullptr;
};
