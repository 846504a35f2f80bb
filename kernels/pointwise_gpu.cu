#include "kernels/gpu_common.cuh"
