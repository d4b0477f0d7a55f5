// What we use of the numbers in cuda.h; tests/cpp/test_cuda_abi.cpp holds them against it where it
// is found.
#pragma once

namespace cwai::cuda {

constexpr int kNoDevice = 100;           // CUDA_ERROR_NO_DEVICE
constexpr int kNotReady = 600;           // CUDA_ERROR_NOT_READY
constexpr int kPeerEnabled = 704;        // CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
constexpr int kDmaBufFd = 1;             // CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD
constexpr unsigned kPortable = 1;        // CU_MEMHOSTALLOC_PORTABLE
constexpr unsigned kNonBlocking = 1;     // CU_STREAM_NON_BLOCKING
constexpr int kCaptureOfThisThread = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

// GPUDirect RDMA.
constexpr int kGpuDirect = 116;       // CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED
constexpr int kFlushOptions = 117;    // CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS
constexpr int kWritesOrdering = 118;  // CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING
constexpr int kDmaBuf = 124;          // CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED
constexpr int kFlushByHost = 1;       // CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST
constexpr int kCurrentContext = 0;    // CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX
constexpr int kToOwner = 100;  // CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER, and of the ordering

}  // namespace cwai::cuda
