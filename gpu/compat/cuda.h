/* CUDA 13 gave these names other signatures. gorgonia.org/cu is written for the ones
   before, which the driver goes on exporting; here they are again. The compiler finds
   this file before the toolkit's with -I in CGO_CFLAGS, and needs it for CUDA 13 only. */
#include_next <cuda.h>

#if !defined(NEURALODE_COMPAT_CUDA_H) && CUDA_VERSION >= 13000
#define NEURALODE_COMPAT_CUDA_H

#undef cuCtxCreate
#undef cuDeviceGetUuid
#undef cuEventElapsedTime
#undef cuGraphAddDependencies
#undef cuGraphGetEdges
#undef cuMemAdvise
#undef cuMemPrefetchAsync
#undef cuStreamGetCtx

#define cuCtxCreate cuCtxCreate_v2
CUresult CUDAAPI cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev);
CUresult CUDAAPI cuDeviceGetUuid(CUuuid *uuid, CUdevice dev);
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent start, CUevent end);
CUresult CUDAAPI cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t n);
CUresult CUDAAPI cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *n);
CUresult CUDAAPI cuMemAdvise(CUdeviceptr p, size_t bytes, CUmem_advise advice, CUdevice dev);
CUresult CUDAAPI cuMemPrefetchAsync(CUdeviceptr p, size_t bytes, CUdevice dst, CUstream stream);
CUresult CUDAAPI cuStreamGetCtx(CUstream stream, CUcontext *ctx);

#endif
