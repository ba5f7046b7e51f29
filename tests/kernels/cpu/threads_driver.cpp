// What `make sanitize-threads` runs under ThreadSanitizer: several callers at once, as in a server, each with a team of
// its own. Python, torch and OpenMP's runtime aren't built for the checker, which would report their every handshake;
// without them the kernels' teams are plain threads.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "call.h"

namespace {

struct Shape {
    int64_t batch, query_heads, kv_heads, query_length, key_length, head_dim, value_dim;
    bool is_causal, is_decode;
    float eps;
};

// Operands that all callers read.
struct Problem {
    Shape shape;
    std::vector<float> query, key, value, bias, strength;
};

Problem make(const Shape& s) {
    const auto some = [](int64_t count) {
        std::vector<float> values(static_cast<size_t>(count));
        uint32_t state = 1;
        for (float& value : values) {
            state = state * 1664525u + 1013904223u;
            value = static_cast<float>(state >> 8) / 8388608.0f - 1;
        }
        return values;
    };
    return {s,
            some(s.batch * s.query_heads * s.query_length * s.head_dim),
            some(s.batch * s.kv_heads * s.key_length * s.head_dim),
            some(s.batch * s.kv_heads * s.key_length * s.value_dim),
            some(s.batch * s.key_length),
            {1.5f}};
}

rls_tensor view(const std::vector<float>& values, int64_t heads, int64_t length, int64_t dim) {
    return {const_cast<float*>(values.data()), heads * length * dim, length * dim, dim};
}

// Forward with all statistics, then the gradients; whether the kernels took both.
bool run(const Problem& p, const char* isa) {
    const Shape& s = p.shape;
    const auto size = [](int64_t count) { return static_cast<size_t>(count); };
    const int64_t rows = s.batch * s.query_heads * s.query_length;
#ifdef RLS_PLANT_A_RACE
    // All callers write to the same output: what the checker must find.
    static
#endif
    std::vector<float> out(size(1 << 20));
    std::vector<float> statistics(size(RLS_ROWS * rows));
    rls_call call{};
    call.batch = s.batch, call.query_heads = s.query_heads, call.kv_heads = s.kv_heads;
    call.query_length = s.query_length, call.key_length = s.key_length;
    call.head_dim = s.head_dim, call.value_dim = s.value_dim;
    call.dtype = call.out_dtype = RLS_FLOAT32;
    call.is_causal = s.is_causal, call.is_decode = s.is_decode;
    call.want_rows = RLS_ALL_ROWS, call.threads = 3;
    call.scale = 0.25f, call.eps = s.eps;
    call.query = view(p.query, s.query_heads, s.query_length, s.head_dim);
    call.key = view(p.key, s.kv_heads, s.key_length, s.head_dim);
    call.value = view(p.value, s.kv_heads, s.key_length, s.value_dim);
    call.out = view(out, s.query_heads, s.query_length, s.value_dim);
    call.bias = p.bias.data(), call.bias_batch_stride = s.key_length;
    call.strength = p.strength.data();
    call.rows = statistics.data();
    if (rls_forward(isa, &call) != RLS_OK) return false;

    std::vector<float> query(p.query.size()), key(p.key.size()), value(p.value.size());
    std::vector<float> bias(size(s.batch * s.query_heads * s.key_length)), strength(size(rows));
    rls_gradient gradient{call,
                          view(out, s.query_heads, s.query_length, s.value_dim),
                          view(query, s.query_heads, s.query_length, s.head_dim),
                          view(key, s.kv_heads, s.key_length, s.head_dim),
                          view(value, s.kv_heads, s.key_length, s.value_dim),
                          bias.data(),
                          strength.data()};
    return rls_backward(isa, &gradient) == RLS_OK;
}

}  // namespace

// Arguments, three for each part: an instruction set, the number of an operation, and a shared library.
int main(int count, char** words) {
    for (int i = 1; i + 2 < count; i += 3) {
        void* part = dlopen(words[i + 2], RTLD_NOW | RTLD_LOCAL);
        void* kernel = part ? dlsym(part, "rls_kernel") : nullptr;
        if (!kernel) return printf("%s\n", dlerror()), 2;
        // A set that this CPU doesn't run takes none.
        rls_install(words[i], static_cast<rls_operation>(atoi(words[i + 1])), RLS_FLOAT32, kernel);
    }
    const Shape shapes[] = {
        {2, 4, 2, 100, 150, 24, 16, true, false, 0},   {1, 2, 2, 60, 300, 16, 16, false, false, 1e-3f},
        {2, 4, 1, 1, 3000, 32, 32, true, true, 1e-3f}, {1, 3, 1, 5, 2000, 16, 24, true, true, 0},
    };
    for (int32_t i = 0; const char* isa = rls_isa_name(i); ++i)
        for (const Shape& shape : shapes) {
            const Problem problem = make(shape);
            bool taken[3] = {};
            std::vector<std::thread> callers;
            for (bool& took : taken) callers.emplace_back([&] { took = run(problem, isa); });
            for (std::thread& caller : callers) caller.join();
            if (!taken[0] || !taken[1] || !taken[2]) return printf("a kernel of %s refused\n", isa), 2;
        }
    puts("done");
    return 0;
}
