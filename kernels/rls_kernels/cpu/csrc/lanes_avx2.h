// Eight float32 lanes: the twins of lanes_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "call.h"

namespace rls::RLS_ISA {

using vec = __m256;
using unit = uint32_t;

constexpr int LANES = 8;
// 6 x 2 accumulators, 2 operands and a broadcast fill 15 of 16 registers.
constexpr int TILE_ROWS = 6;
constexpr int TILE_VECTORS = 2;

inline vec load(const void* p) { return _mm256_loadu_ps(static_cast<const float*>(p)); }
inline void store(void* p, vec a) { _mm256_storeu_ps(static_cast<float*>(p), a); }
inline vec broadcast(float a) { return _mm256_set1_ps(a); }
inline vec broadcast_unit(const unit* p) { return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*p))); }
// The same vector, kept in its register: gcc would load it again for each use, and there loads are what runs out.
inline vec hold(vec a) {
    asm("" : "+x"(a));
    return a;
}
inline vec add(vec a, vec b) { return _mm256_add_ps(a, b); }
inline vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
inline vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
inline vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
inline vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
inline vec min(vec a, vec b) { return _mm256_min_ps(a, b); }
inline bool any_greater(vec a, vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }

inline float reduce_add(vec a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline float reduce_max(vec a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline __m256i lanes_below(int64_t n) {
    const int clipped = n >= LANES ? LANES : n <= 0 ? 0 : static_cast<int>(n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(clipped), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Lanes below `n` from a, the others from b; any n.
inline vec first(int64_t n, vec a, vec b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(lanes_below(n))); }

// 2^a within 2e-7 relative, 0 below -126.
inline vec exp2(vec a) {
    const vec lowest = broadcast(-126.0f);
    // The second operand wins where one is NaN, so NaN goes through.
    const vec clipped = max(lowest, a);
    const vec whole = _mm256_round_ps(clipped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const vec part = sub(clipped, whole);
    vec p = broadcast(1.5403530e-4f);
    p = fma(p, part, broadcast(1.3333558e-3f));
    p = fma(p, part, broadcast(9.6181291e-3f));
    p = fma(p, part, broadcast(5.5504109e-2f));
    p = fma(p, part, broadcast(2.4022651e-1f));
    p = fma(p, part, broadcast(6.9314718e-1f));
    p = fma(p, part, broadcast(1.0f));
    const __m256i shifted = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
    const vec scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), shifted));
    return _mm256_andnot_ps(_mm256_cmp_ps(a, lowest, _CMP_LT_OQ), scaled);
}

// Reads `n` >= 1 elements at `p` as float32; lanes past n are 0 and their memory is not touched.
template <int DTYPE>
inline vec load_elements(const void* p, int64_t n) {
    constexpr int SIZE = DTYPE == RLS_FLOAT32 ? 4 : 2;
    alignas(32) unsigned char padded[32] = {};
    // Left out, this is a read past the end: the fault that `make sanitize-cpu` must find.
#ifndef RLS_PLANT_A_FAULT
    if (n < LANES) p = memcpy(padded, p, static_cast<size_t>(n) * SIZE);
#endif
    if constexpr (DTYPE == RLS_FLOAT32) return load(p);
    const __m128i half = _mm_loadu_si128(static_cast<const __m128i*>(p));
    if constexpr (DTYPE == RLS_FLOAT16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Widens 2 x LANES bfloat16 into even and odd elements: one cheap instruction each, where widening in order takes two.
inline void widen_bfloat16(const void* p, vec& even, vec& odd) {
    const __m256i both = _mm256_castps_si256(hold(load(p)));
    even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    odd = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// Even and odd lanes back in order.
inline void interleave(vec& even, vec& odd) {
    const vec low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    even = _mm256_permute2f128_ps(low, high, 0x20);
    odd = _mm256_permute2f128_ps(low, high, 0x31);
}

// Rounds to nearest even, as torch does; NaN stays NaN.
inline __m128i to_bfloat16(vec a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i safe = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan);
    const __m256i high = _mm256_srli_epi32(safe, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

// Writes the first `n` >= 1 lanes at `p`.
template <int DTYPE>
inline void store_elements(void* p, vec a, int64_t n) {
    alignas(32) unsigned char bytes[32];
    if constexpr (DTYPE == RLS_FLOAT32) store(bytes, a);
    else {
        __m128i half;
        if constexpr (DTYPE == RLS_FLOAT16) half = _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        else half = to_bfloat16(a);
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes), half);
    }
    constexpr int SIZE = DTYPE == RLS_FLOAT32 ? 4 : 2;
    memcpy(p, bytes, static_cast<size_t>(n < LANES ? n : LANES) * SIZE);
}

// Transposes a square of lanes in place.
inline void transpose(vec (&m)[LANES]) {
    vec a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(m[i], m[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        m[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        m[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

// Lane i is the sum of m[i]'s lanes.
inline vec reduce_each(const vec (&m)[LANES]) {
    vec half[2];
    for (int i = 0; i < 2; ++i) {
        const vec* four = m + 4 * i;
        const vec a = add(_mm256_unpacklo_ps(four[0], four[1]), _mm256_unpackhi_ps(four[0], four[1]));
        const vec b = add(_mm256_unpacklo_ps(four[2], four[3]), _mm256_unpackhi_ps(four[2], four[3]));
        half[i] = add(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    }
    return add(_mm256_blend_ps(half[0], half[1], 0xf0), _mm256_permute2f128_ps(half[0], half[1], 0x21));
}

}  // namespace rls::RLS_ISA
