// What the tables of all versions come down to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nccl_plugin/net_abi.hpp"

namespace cwai::nccl_net {

constexpr const char* kName = "cwai";

/// Chooses rails and listens at them, the first time; later only the logger is new.
Result init(Logger logger) noexcept;
Result devices(int* count) noexcept;
/// Of the one device, all of whose rails are its paths.
Result describe(int device, Properties12* properties) noexcept;

Result listen(int device, void* handle, void** listen_comm) noexcept;
Result connect(int device, void* handle, void** send_comm) noexcept;
Result accept(void* listen_comm, void** recv_comm) noexcept;
Result reg_mr(void* comm, void* data, std::size_t size, int type, void** mhandle) noexcept;
Result reg_mr_dma_buf(void* comm, void* data, std::size_t size, int type, std::uint64_t offset,
                      int fd, void** mhandle) noexcept;
Result dereg_mr(void* comm, void* mhandle) noexcept;
/// ``mhandle`` of either: null is memory of the host.
Result isend(void* comm, void* data, std::size_t size, int tag, void* mhandle,
             void** request) noexcept;
Result irecv(void* comm, int n, void* const* data, const std::size_t* sizes, const int* tags,
             void* const* mhandles, void** request) noexcept;
/// Done at once: ``request`` is null.
Result iflush(int n, const int* sizes, void* const* mhandles, void** request) noexcept;
Result test(void* request, int* done, int* sizes) noexcept;
Result close_send(void* comm) noexcept;
Result close_recv(void* comm) noexcept;
Result close_listen(void* comm) noexcept;

}  // namespace cwai::nccl_net
