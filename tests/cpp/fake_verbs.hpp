#pragma once

/// What the fake library (fake_verbs.cpp) counts, and what a test asks of it.
struct FakeVerbs {
  int alive = 0;              ///< Things made and not freed.
  int freed_too_early = 0;    ///< Things freed before what was made of them.
  int fail_after = -1;        ///< So many more things are made, and none after them; -1: all are.
  int fail_sends_after = -1;  ///< So many more messages arrive, and none after them; -1: all do.
  bool no_dma_buf = false;    ///< The device registers none.
  bool no_building = false;   ///< It has no queue pairs in which requests are built (ibv_wr_*).
  bool old_library = false;   ///< Its context is of the time before there was such a thing.
  bool port_down = false;     ///< The port is not active.
  bool corrupt = false;       ///< A bit of each message turns over on the way.
  bool nowhere = false;       ///< Messages complete and go nowhere: what is left is our own work.
  unsigned long sent = 0;     ///< Messages that completed well.
  unsigned long built = 0;    ///< Requests that were built in a queue pair.
  int first_gid = 0;          ///< GIDs of a lower index are empty.
};
