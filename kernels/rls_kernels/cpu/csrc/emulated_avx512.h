// AVX-512 and AVX-512-BF16 instructions in AVX2, for machines without them: what the kernels use, and no more. The
// functions stand in the kernels' own namespace, where they hide those of <immintrin.h>. Masked memory is not touched.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// A macro in gcc.
#undef _mm512_setr_epi32

namespace rls::RLS_ISA {

template <class T, class From>
inline T bits_of(From from) {
    static_assert(sizeof(T) == sizeof(From));
    T to;
    memcpy(&to, &from, sizeof to);
    return to;
}

struct Halves {
    __m256 low, high;
};
struct WholeHalves {
    __m256i low, high;
};

template <class Work>
inline __m512 each_half(__m512 a, const Work& work) {
    const Halves x = bits_of<Halves>(a);
    return bits_of<__m512>(Halves{work(x.low), work(x.high)});
}
template <class Work>
inline __m512 each_half(__m512 a, __m512 b, const Work& work) {
    const Halves x = bits_of<Halves>(a), y = bits_of<Halves>(b);
    return bits_of<__m512>(Halves{work(x.low, y.low), work(x.high, y.high)});
}
template <class Work>
inline __m512i each_half(__m512i a, const Work& work) {
    const WholeHalves x = bits_of<WholeHalves>(a);
    return bits_of<__m512i>(WholeHalves{work(x.low), work(x.high)});
}
template <class Work>
inline __m512i each_half(__m512i a, __m512i b, const Work& work) {
    const WholeHalves x = bits_of<WholeHalves>(a), y = bits_of<WholeHalves>(b);
    return bits_of<__m512i>(WholeHalves{work(x.low, y.low), work(x.high, y.high)});
}

inline __m512 _mm512_castsi512_ps(__m512i a) { return bits_of<__m512>(a); }
inline __m512i _mm512_castps_si512(__m512 a) { return bits_of<__m512i>(a); }

inline __m512 _mm512_set1_ps(float a) { return bits_of<__m512>(Halves{_mm256_set1_ps(a), _mm256_set1_ps(a)}); }
inline __m512i _mm512_set1_epi32(int a) {
    return bits_of<__m512i>(WholeHalves{_mm256_set1_epi32(a), _mm256_set1_epi32(a)});
}
template <class... Ints>
inline __m512i _mm512_setr_epi32(Ints... values) {
    static_assert(sizeof...(Ints) == 16);
    const int lanes[16] = {values...};
    __m512i a;
    memcpy(&a, lanes, sizeof a);
    return a;
}

// Memory.
template <class T>
inline T load_whole(const void* p) {
    T a;
    memcpy(&a, p, sizeof a);
    return a;
}
inline __m512 _mm512_loadu_ps(const void* p) { return load_whole<__m512>(p); }
inline __m512i _mm512_loadu_si512(const void* p) { return load_whole<__m512i>(p); }
inline void _mm512_storeu_ps(void* p, __m512 a) { memcpy(p, &a, sizeof a); }
inline void _mm512_storeu_si512(void* p, __m512i a) { memcpy(p, &a, sizeof a); }

template <class Vector, class Lane>
inline Vector load_kept(uint32_t kept, const void* p) {
    constexpr int LANES_HERE = sizeof(Vector) / sizeof(Lane);
    Lane lanes[LANES_HERE] = {};
    for (int i = 0; i < LANES_HERE; ++i)
        if (kept >> i & 1) memcpy(lanes + i, static_cast<const Lane*>(p) + i, sizeof(Lane));
    return load_whole<Vector>(lanes);
}
template <class Vector, class Lane>
inline void store_kept(void* p, uint32_t kept, Vector a) {
    constexpr int LANES_HERE = sizeof(Vector) / sizeof(Lane);
    Lane lanes[LANES_HERE];
    memcpy(lanes, &a, sizeof a);
    for (int i = 0; i < LANES_HERE; ++i)
        if (kept >> i & 1) memcpy(static_cast<Lane*>(p) + i, lanes + i, sizeof(Lane));
}
inline __m512 _mm512_maskz_loadu_ps(__mmask16 kept, const void* p) {
    return kept == 0xffff ? load_whole<__m512>(p) : load_kept<__m512, float>(kept, p);
}
inline __m256i _mm256_maskz_loadu_epi16(__mmask16 kept, const void* p) {
    return kept == 0xffff ? load_whole<__m256i>(p) : load_kept<__m256i, uint16_t>(kept, p);
}
inline __m512i _mm512_maskz_loadu_epi16(__mmask32 kept, const void* p) {
    return kept == ~0u ? load_whole<__m512i>(p) : load_kept<__m512i, uint16_t>(kept, p);
}
inline void _mm512_mask_storeu_ps(void* p, __mmask16 kept, __m512 a) { store_kept<__m512, float>(p, kept, a); }
inline void _mm256_mask_storeu_epi16(void* p, __mmask16 kept, __m256i a) { store_kept<__m256i, uint16_t>(p, kept, a); }

// Arithmetic.
inline __m512 _mm512_add_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_add_ps(x, y); });
}
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_sub_ps(x, y); });
}
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_mul_ps(x, y); });
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_max_ps(x, y); });
}
inline __m512 _mm512_min_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_min_ps(x, y); });
}
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    const Halves x = bits_of<Halves>(a), y = bits_of<Halves>(b), z = bits_of<Halves>(c);
    return bits_of<__m512>(Halves{_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)});
}
inline float _mm512_reduce_add_ps(__m512 a) {
    const Halves x = bits_of<Halves>(a);
    const __m256 s = _mm256_add_ps(x.high, x.low);
    const __m128 t = _mm_add_ps(_mm256_extractf128_ps(s, 1), _mm256_castps256_ps128(s));
    const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
}
inline float _mm512_reduce_max_ps(__m512 a) {
    const Halves x = bits_of<Halves>(a);
    const __m256 s = _mm256_max_ps(x.high, x.low);
    const __m128 t = _mm_max_ps(_mm256_extractf128_ps(s, 1), _mm256_castps256_ps128(s));
    const __m128 u = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(u, _mm_movehdup_ps(u)));
}
inline __m512 _mm512_roundscale_ps(__m512 a, int how) {
    if (how != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) __builtin_trap();
    return each_half(a, [](auto x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); });
}
// a * 2^floor(b), rounded once. A quiet NaN times 2^-inf is 0 and times 2^inf is inf, as the instruction has it; nobody
// asks for the other special cases of infinities.
inline __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](__m256 x, __m256 y) {
        const __m256 inf = _mm256_set1_ps(HUGE_VALF), minus_inf = _mm256_set1_ps(-HUGE_VALF);
        const __m256 clipped = _mm256_min_ps(_mm256_set1_ps(254), _mm256_max_ps(_mm256_set1_ps(-252), y));
        const __m256i n = _mm256_cvtps_epi32(_mm256_floor_ps(clipped));
        const __m256i half = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127);
        const auto power = [&](__m256i e) {
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23));
        };
        __m256 scaled = _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(n, half)));
        scaled = _mm256_blendv_ps(scaled, y, _mm256_cmp_ps(y, y, _CMP_UNORD_Q));
        scaled = _mm256_blendv_ps(scaled, _mm256_setzero_ps(), _mm256_cmp_ps(y, minus_inf, _CMP_EQ_OQ));
        return _mm256_blendv_ps(scaled, inf, _mm256_cmp_ps(y, inf, _CMP_EQ_OQ));
    });
}
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_add_epi32(x, y); });
}
inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_and_si256(x, y); });
}
inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_or_si256(x, y); });
}
inline __m512i _mm512_slli_epi32(__m512i a, int n) {
    return each_half(a, [n](auto x) { return _mm256_slli_epi32(x, n); });
}
inline __m512i _mm512_srli_epi32(__m512i a, int n) {
    return each_half(a, [n](auto x) { return _mm256_srli_epi32(x, n); });
}

// Masks.
inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
    const Halves x = bits_of<Halves>(a), y = bits_of<Halves>(b);
    const auto both = [&](__m256 low, __m256 high) {
        return static_cast<__mmask16>(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
    };
    if (how == _CMP_GT_OQ)
        return both(_mm256_cmp_ps(x.low, y.low, _CMP_GT_OQ), _mm256_cmp_ps(x.high, y.high, _CMP_GT_OQ));
    if (how != _CMP_UNORD_Q) __builtin_trap();
    return both(_mm256_cmp_ps(x.low, y.low, _CMP_UNORD_Q), _mm256_cmp_ps(x.high, y.high, _CMP_UNORD_Q));
}
inline __m512i wide_mask(__mmask16 kept) {
    const __m512i bit = _mm512_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768);
    return each_half(_mm512_and_si512(_mm512_set1_epi32(kept), bit), bit,
                     [](auto x, auto y) { return _mm256_cmpeq_epi32(x, y); });
}
inline __m512i _mm512_mask_mov_epi32(__m512i otherwise, __mmask16 kept, __m512i a) {
    const __m512i mask = wide_mask(kept),
                  left = each_half(mask, otherwise, [](auto x, auto y) { return _mm256_andnot_si256(x, y); });
    return _mm512_or_si512(_mm512_and_si512(mask, a), left);
}
inline __m512 _mm512_mask_blend_ps(__mmask16 kept, __m512 otherwise, __m512 a) {
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(_mm512_castps_si512(otherwise), kept, _mm512_castps_si512(a)));
}

// Conversions.
inline __m512 _mm512_cvtph_ps(__m256i a) {
    return bits_of<__m512>(
        Halves{_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))});
}
inline __m256i _mm512_cvtps_ph(__m512 a, int how) {
    if (how != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) __builtin_trap();
    const Halves x = bits_of<Halves>(a);
    return _mm256_set_m128i(_mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
}
inline __m512i _mm512_cvtepu16_epi32(__m256i a) {
    return bits_of<__m512i>(WholeHalves{_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                                        _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))});
}
// Keeps the low half of each lane.
inline __m256i _mm512_cvtepi32_epi16(__m512i a) {
    uint32_t wide[16];
    uint16_t narrow[16];
    memcpy(wide, &a, sizeof a);
    for (int i = 0; i < 16; ++i) narrow[i] = static_cast<uint16_t>(wide[i]);
    return load_whole<__m256i>(narrow);
}

// Permutations.
struct Lanes {
    uint32_t lane[16];
};
inline __m512 _mm512_permutex2var_ps(__m512 a, __m512i index, __m512 b) {
    const Lanes x = bits_of<Lanes>(a), y = bits_of<Lanes>(b), at = bits_of<Lanes>(index);
    Lanes to;
    for (int i = 0; i < 16; ++i) to.lane[i] = (at.lane[i] & 16 ? y : x).lane[at.lane[i] & 15];
    return bits_of<__m512>(to);
}
inline __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_unpacklo_ps(x, y); });
}
inline __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
    return each_half(a, b, [](auto x, auto y) { return _mm256_unpackhi_ps(x, y); });
}
inline __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int control) {
    const Lanes x = bits_of<Lanes>(a), y = bits_of<Lanes>(b);
    Lanes to;
    for (int i = 0; i < 16; ++i) to.lane[i] = (i & 2 ? y : x).lane[(i & ~3) + (control >> 2 * (i & 3) & 3)];
    return bits_of<__m512>(to);
}
inline __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int control) {
    const Lanes x = bits_of<Lanes>(a), y = bits_of<Lanes>(b);
    Lanes to;
    for (int i = 0; i < 16; ++i) to.lane[i] = (i < 8 ? x : y).lane[4 * (control >> 2 * (i / 4) & 3) + (i & 3)];
    return bits_of<__m512>(to);
}

// bfloat16: subnormals count as 0, before and after.
inline __m512 flush(__m512 a) {
    return each_half(a, [](__m256 x) {
        const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
        return _mm256_andnot_ps(_mm256_cmp_ps(size, _mm256_set1_ps(1.17549435e-38f), _CMP_LT_OQ), x);
    });
}
inline __m512 odd_bfloat16(__m512bh a) {
    return flush(
        _mm512_castsi512_ps(_mm512_and_si512(bits_of<__m512i>(a), _mm512_set1_epi32(static_cast<int>(0xffff0000)))));
}
inline __m512 even_bfloat16(__m512bh a) {
    return flush(_mm512_castsi512_ps(_mm512_slli_epi32(bits_of<__m512i>(a), 16)));
}
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    sum = flush(_mm512_fmadd_ps(odd_bfloat16(a), odd_bfloat16(b), flush(sum)));
    return flush(_mm512_fmadd_ps(even_bfloat16(a), even_bfloat16(b), sum));
}
// The lower half of the result comes from `low`. Rounds to nearest even; NaN stays NaN, and quiet.
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
    uint32_t from[32];
    uint16_t to[32];
    const __m512 flushed[2] = {flush(low), flush(high)};
    memcpy(from, flushed, sizeof from);
    for (int i = 0; i < 32; ++i) {
        const bool is_nan = (from[i] & 0x7fffffff) > 0x7f800000;
        to[i] = static_cast<uint16_t>(is_nan ? from[i] >> 16 | 0x40 : (from[i] + 0x7fff + (from[i] >> 16 & 1)) >> 16);
    }
    return load_whole<__m512bh>(to);
}

}  // namespace rls::RLS_ISA
