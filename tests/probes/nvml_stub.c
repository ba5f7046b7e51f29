/* A libnvidia-ml.so.1 for machines without a GPU: enough for nvidia-ml-py and rls_bench.machines.nvidia.
 *
 * It has one GPU that draws STUB_WATTS (default 300) at STUB_SM_MHZ (1700). STUB_FAIL is a comma-separated list of
 * function=code: that function returns that NVML code, from its STUB_FAIL_AFTER-th call on (default 0, at once).
 * STUB_CC is its compute capability (90), STUB_REASONS the mask of clock event reasons. All are read at each call.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6 };

static const char *const UUID = "GPU-5b1bf1a5-0000-4000-8000-00000000c0de";
static int initialized;
static int the_gpu;

static long number(const char *variable, long otherwise) {
    const char *text = getenv(variable);
    return text ? strtol(text, NULL, 0) : otherwise;
}

/* The code that STUB_FAIL asks of this function, or SUCCESS. */
static int planted(const char *function, long *calls) {
    const char *at = getenv("STUB_FAIL");
    size_t length = strlen(function);
    if ((*calls)++ < number("STUB_FAIL_AFTER", 0)) return SUCCESS;
    for (; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, function, length) && at[length] == '=') return atoi(at + length + 1);
    return SUCCESS;
}

#define FAULT()                                          \
    do {                                                 \
        static long calls;                               \
        int code = planted(__func__, &calls);            \
        if (code != SUCCESS) return code;                \
    } while (0)
#define ENTER()                                          \
    do {                                                 \
        if (!initialized) return UNINITIALIZED;          \
        FAULT();                                         \
    } while (0)
#define TEXT(buffer, size, text) (snprintf(buffer, size, "%s", text), SUCCESS)

int nvmlInitWithFlags(unsigned flags) { FAULT(); (void)flags; initialized = 1; return SUCCESS; }
int nvmlShutdown(void) { ENTER(); initialized = 0; return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "stub error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { ENTER(); return TEXT(text, size, "570.00-stub"); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    ENTER();
    if (index) return INVALID_ARGUMENT;
    *gpu = &the_gpu;
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    ENTER();
    if (strcmp(uuid, UUID)) return NOT_FOUND;
    *gpu = &the_gpu;
    return SUCCESS;
}

int nvmlDeviceGetName(void *gpu, char *text, unsigned size) { ENTER(); (void)gpu; return TEXT(text, size, "Stub GPU"); }
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size) { ENTER(); (void)gpu; return TEXT(text, size, UUID); }

int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
    ENTER(); (void)gpu; *major = number("STUB_CC", 90) / 10; *minor = number("STUB_CC", 90) % 10; return SUCCESS;
}

static unsigned clock_mhz(int domain) { return domain == 2 ? 2600 : number("STUB_SM_MHZ", 1700); }
int nvmlDeviceGetClockInfo(void *gpu, int domain, unsigned *mhz) {
    ENTER(); (void)gpu; *mhz = clock_mhz(domain); return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(void *gpu, int domain, unsigned *mhz) {
    ENTER(); (void)gpu; *mhz = domain == 2 ? 2600 : 1980; return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) {
    ENTER(); (void)gpu; *milliwatts = 1000 * number("STUB_WATTS", 300); return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(void *gpu, unsigned *milliwatts) {
    ENTER(); (void)gpu; *milliwatts = 700000; return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) {
    struct timespec now;
    ENTER();
    (void)gpu;
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* Like the real counter, it moves every 10 ms. */
    *millijoules = (now.tv_sec * 100 + now.tv_nsec / 10000000) * 10ull * number("STUB_WATTS", 300);
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius) {
    ENTER(); (void)gpu; (void)sensor; *celsius = 61; return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *gpu, unsigned long long *mask) {
    ENTER(); (void)gpu; *mask = number("STUB_REASONS", 0); return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *gpu, unsigned long long *mask) {
    ENTER(); (void)gpu; *mask = number("STUB_REASONS", 0); return SUCCESS;
}
