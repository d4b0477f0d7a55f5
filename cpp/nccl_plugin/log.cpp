#include "nccl_plugin/log.hpp"

#include <atomic>

namespace cwai::nccl_net {
namespace {

std::atomic<Logger> the_logger{nullptr};

void say(LogLevel level, const std::string& text) {
  if (const Logger logger = the_logger.load())
    logger(level, kLogInit | kLogNet, "cwai", 0, "NET/cwai: %s", text.c_str());
}

}  // namespace

void log_with(Logger logger) noexcept { the_logger.store(logger); }
void warn(const std::string& text) { say(kLogWarn, text); }
void inform(const std::string& text) { say(kLogInfo, text); }

}  // namespace cwai::nccl_net
