#pragma once

/// What the fake library (fake_verbs.cpp) counts, and what a test asks of it.
struct FakeVerbs {
  int alive = 0;              ///< Things made and not freed.
  int freed_too_early = 0;    ///< Things freed before what was made of them.
  int fail_after = -1;        ///< So many more things are made, and none after them; -1: all are.
  int fail_sends_after = -1;  ///< So many more messages arrive, and none after them; -1: all do.
  bool no_dma_buf = false;    ///< The device registers none.
  bool corrupt = false;       ///< A bit of each message turns over on the way.
  bool nowhere = false;       ///< Messages complete and go nowhere: what is left is our own work.
  unsigned long sent = 0;     ///< Messages that completed well.
  int first_gid = 0;          ///< GIDs of a lower index are empty.
};
