// The vector words of the instruction set that this file is being compiled for.
#pragma once

#ifdef RLS_AVX512
#include "lanes_avx512.h"
#else
#include "lanes_avx2.h"
#endif
