/* A CUDA driver of the tests, in host memory: what penguin_ros/backends/cuda.py asks of pycuda, and nothing else.

   Work is done at once. Everything wants a context that is current in the calling thread, and every address is looked up. */
#define __CUDA_API_VERSION_INTERNAL 1
#include <cuda.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 4096, DEPTH = 1024 };
static struct { char *begin; size_t size; } blocks[BLOCKS];
static size_t held, limit = (size_t)1 << 40;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread CUcontext contexts[DEPTH];
static __thread int depth;
static CUcontext primary = (CUcontext)0x1000;

/* For the tests alone. */
size_t host_cuda_held(void) { return held; }
void host_cuda_limit(size_t bytes) { limit = bytes; }
int host_cuda_current(void) { return depth > 0; }
int host_cuda_span(CUdeviceptr address, size_t size) {
  char *begin = (char *)address;
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].begin && blocks[i].begin <= begin && begin + size <= blocks[i].begin + blocks[i].size) return 1;
  return 0;
}

#define WANT_CONTEXT do { if (!depth) return CUDA_ERROR_INVALID_CONTEXT; } while (0)
#define WANT_SPAN(address, size) do { if (!host_cuda_span(address, size)) return CUDA_ERROR_ILLEGAL_ADDRESS; } while (0)

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 12060; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int size, CUdevice device) { snprintf(name, size, "Orin"); return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  *value = attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 16
         : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8
         : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 7 : 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) { *major = 8; *minor = 7; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "some error";
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { *context = primary; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext context) {
  if (depth == DEPTH) return CUDA_ERROR_INVALID_VALUE;
  contexts[depth++] = context;
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  WANT_CONTEXT;
  *context = contexts[--depth];
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
  WANT_CONTEXT;
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  void *begin;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < BLOCKS && held + size <= limit; i++)
    if (!blocks[i].begin) {
      if (posix_memalign(&begin, 256, size)) break;
      memset(begin, 0xFF, size); /* NaN as float16 and float32 */
      blocks[i].begin = begin;
      blocks[i].size = size;
      held += size;
      *address = (CUdeviceptr)begin;
      result = CUDA_SUCCESS;
      break;
    }
  pthread_mutex_unlock(&lock);
  return result;
}
CUresult cuMemFree_v2(CUdeviceptr address) {
  WANT_CONTEXT;
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].begin && blocks[i].begin == (char *)address) {
      held -= blocks[i].size;
      free(blocks[i].begin);
      blocks[i].begin = NULL;
      result = CUDA_SUCCESS;
      break;
    }
  pthread_mutex_unlock(&lock);
  return result;
}
CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  WANT_CONTEXT;
  *available = limit - held;
  *total = limit;
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void **begin, size_t size, unsigned flags) {
  WANT_CONTEXT;
  return posix_memalign(begin, 4096, size ? size : 1) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *begin) { WANT_CONTEXT; free(begin); return CUDA_SUCCESS; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t size, CUstream stream) {
  WANT_CONTEXT;
  WANT_SPAN(target, size);
  memcpy((void *)target, source, size);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t size, CUstream stream) {
  WANT_CONTEXT;
  WANT_SPAN(source, size);
  memcpy(target, (void *)source, size);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t size, CUstream stream) {
  WANT_CONTEXT;
  WANT_SPAN(target, size);
  WANT_SPAN(source, size);
  if (target < source + size && source < target + size) return CUDA_ERROR_INVALID_VALUE;
  memcpy((void *)target, (void *)source, size);
  return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t size, CUstream stream) {
  WANT_CONTEXT;
  WANT_SPAN(target, size);
  memset((void *)target, value, size);
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) { WANT_CONTEXT; *stream = (CUstream)0x5EED; return CUDA_SUCCESS; }
CUresult cuStreamDestroy_v2(CUstream stream) { WANT_CONTEXT; return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream stream) { WANT_CONTEXT; return CUDA_SUCCESS; }
CUresult cuEventCreate(CUevent *event, unsigned flags) { WANT_CONTEXT; *event = (CUevent)0xE; return CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent event) { WANT_CONTEXT; return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) { WANT_CONTEXT; return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent event) { WANT_CONTEXT; return CUDA_SUCCESS; }
