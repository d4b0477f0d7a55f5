// What can go wrong, each with a name. The words for a person are made in Python, in both
// languages.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cwai {

enum class Fault : std::uint8_t {
  kInvalid,        ///< An argument that cannot be: the caller's mistake.
  kInUse,          ///< A connection on which a run is going on.
  kAddress,        ///< Not an address of this machine, or no numeric address at all.
  kPortsTaken,     ///< Every port that was tried is taken.
  kListen,         ///< The system refused to listen.
  kConnect,        ///< The peer could not be reached.
  kRejected,       ///< The peer answered the greeting with no.
  kPeerClosed,     ///< The peer ended the connection in the middle of a run.
  kTransfer,       ///< The system refused to move bytes.
  kMisconfigured,  ///< A NIC refused memory or a request: settings or a bug, and never the path.
  kDevice,         ///< A device that is not there, not active, or cannot be opened.
  kDisagreed,      ///< The two ends were not asked to do the same.
  kGarbled,        ///< A control record arrived broken.
  kDeadline,       ///< Time is over.
  kStopped,        ///< stop() was called.
  kPinning,        ///< The system refused to pin the thread to this CPU.
  kLibrary,        ///< A library could not be loaded, or lacks a symbol.
  kNoMpi,          ///< No MPI library is loaded in this process.
  kUnknownMpi,     ///< An MPI whose binary interface is not known.
  kMpi,            ///< An MPI call returned an error.
  kUnsupported,    ///< What a library cannot do; said before anything starts.
  kMixed,          ///< Processes of one group that have loaded different versions of a library.
  kCollective,     ///< A collective library returned an error, or found one on its way.
};

std::string_view fault_name(Fault fault) noexcept;

/// The names of all faults, in order.
std::vector<std::string> fault_names();

/// ``subject`` names the thing (an address, a file, an argument); ``code`` is errno or 0;
/// ``vendor_code`` is what the library said, as it said it.
class Error : public std::runtime_error {
 public:
  explicit Error(Fault fault, std::string subject, int code = 0, std::string vendor_code = "");

  Fault fault() const noexcept { return fault_; }
  int code() const noexcept { return code_; }
  const std::string& subject() const noexcept { return subject_; }
  const std::string& vendor_code() const noexcept { return vendor_code_; }

 private:
  Fault fault_;
  int code_;
  std::string subject_;
  std::string vendor_code_;
};

}  // namespace cwai
