#include "nccl_plugin/thread.hpp"

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace cwai::nccl_net {
namespace {

class SignalsHeldBack {
 public:
  SignalsHeldBack() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsHeldBack() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeldBack(const SignalsHeldBack&) = delete;
  SignalsHeldBack& operator=(const SignalsHeldBack&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

void start_thread(const char* name, std::function<void()> body) {
  const SignalsHeldBack held;  // a new thread begins with the mask of who made it
  std::thread([name, body = std::move(body)] {
    pthread_setname_np(pthread_self(), name);
    body();
  }).detach();
}

}  // namespace cwai::nccl_net
