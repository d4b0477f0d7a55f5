// Our numbers of CUDA's driver interface against its own header. It asserts while it is compiled;
// where the header is not here there is nothing to hold them against.
#include <cuda.h>

#include <cstddef>

#include "device/cuda.hpp"
#include "device/cuda_abi.hpp"
#include "runner.hpp"

#define SAME_NUMBER(mine, theirs) \
  static_assert(static_cast<long>(mine) == static_cast<long>(theirs))

SAME_NUMBER(cwai::cuda::kNoDevice, CUDA_ERROR_NO_DEVICE);
SAME_NUMBER(cwai::cuda::kNotReady, CUDA_ERROR_NOT_READY);
SAME_NUMBER(cwai::cuda::kPeerEnabled, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
SAME_NUMBER(cwai::cuda::kDmaBufFd, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD);
SAME_NUMBER(cwai::cuda::kPortable, CU_MEMHOSTALLOC_PORTABLE);
SAME_NUMBER(cwai::cuda::kNonBlocking, CU_STREAM_NON_BLOCKING);
SAME_NUMBER(cwai::cuda::kCaptureOfThisThread, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME_NUMBER(cwai::cuda::kGpuDirect, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED);
SAME_NUMBER(cwai::cuda::kFlushOptions, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS);
SAME_NUMBER(cwai::cuda::kWritesOrdering, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING);
SAME_NUMBER(cwai::cuda::kDmaBuf, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
SAME_NUMBER(cwai::cuda::kFlushByHost, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
SAME_NUMBER(cwai::cuda::kCurrentContext, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX);
SAME_NUMBER(cwai::cuda::kToOwner, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
SAME_NUMBER(cwai::cuda::kToOwner, CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER);
SAME_NUMBER(cwai::GpuAttribute::kMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME_NUMBER(cwai::GpuAttribute::kMemoryClock, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
SAME_NUMBER(cwai::GpuAttribute::kMemoryBusWidth, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
SAME_NUMBER(cwai::GpuAttribute::kL2Bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME_NUMBER(cwai::GpuAttribute::kCopyEngines, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
SAME_NUMBER(cwai::GpuAttribute::kComputeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME_NUMBER(cwai::GpuAttribute::kComputeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME_NUMBER(cwai::GpuAttribute::kDmaBuf, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
// Addresses of a GPU are passed as pointers of ours.
static_assert(sizeof(CUdeviceptr) == sizeof(std::byte*) && alignof(CUdeviceptr) == alignof(void*));
static_assert(sizeof(CUdevice) == sizeof(int) && sizeof(CUresult) == sizeof(int));

TEST(the_numbers_of_cuda_are_as_declared) {}
