#include "kernels/dense_gpu.h"
