/* A libnvidia-ml.so.1 for machines without a GPU: enough for nvidia-ml-py and rls_bench.machines.nvidia.
 *
 * It has STUB_COUNT GPUs (default 1) that draw STUB_WATTS (300) at STUB_SM_MHZ (1700; one number a GPU, by commas).
 * STUB_FAIL is a comma-separated list of function=code: that function returns that NVML code, from its
 * STUB_FAIL_AFTER-th call on (default 0, at once). STUB_CC is the compute capability (90), STUB_REASONS the mask of clock
 * event reasons. STUB_MIG=1 gives each GPU one MIG instance, STUB_VIRTUALIZATION is the mode (2: a vGPU), STUB_MIXED=1
 * gives each GPU another name. All are read at each call.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

/* The last digit of a UUID counts the GPUs. */
#define UUID "GPU-5b1bf1a5-0000-4000-8000-00000000c0d%x"
#define MIG_UUID "MIG-7e57ab1e-0000-4000-8000-00000000c0d%x"
enum { MOST = 4 };

static int initialized;
static struct { int index, is_mig; } gpus[2 * MOST];

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

static int index_of(void *gpu) { return *(int *)gpu; }
static int is_mig(void *gpu) { return ((int *)gpu)[1]; }

static void *device(int index, int mig) {
    gpus[2 * index + mig].index = index;
    gpus[2 * index + mig].is_mig = mig;
    return &gpus[2 * index + mig];
}

static void name_uuid(void *gpu, char *text, unsigned size) {
    snprintf(text, size, is_mig(gpu) ? MIG_UUID : UUID, 0xe - index_of(gpu));
}

int nvmlDeviceGetCount_v2(unsigned *count) { ENTER(); *count = number("STUB_COUNT", 1); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    ENTER();
    if (index >= number("STUB_COUNT", 1)) return INVALID_ARGUMENT;
    *gpu = device(index, 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    char text[96];
    ENTER();
    for (int i = 0; i < number("STUB_COUNT", 1); i++)
        for (int mig = 0; mig <= number("STUB_MIG", 0); mig++) {
            name_uuid(device(i, mig), text, sizeof text);
            if (!strcmp(uuid, text)) return *gpu = device(i, mig), SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceIsMigDeviceHandle(void *gpu, unsigned *answer) { ENTER(); *answer = is_mig(gpu); return SUCCESS; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **gpu) {
    ENTER(); *gpu = device(index_of(mig), 0); return SUCCESS;
}
int nvmlDeviceGetMigMode(void *gpu, unsigned *current, unsigned *pending) {
    ENTER(); (void)gpu;
    if (!getenv("STUB_MIG")) return NOT_SUPPORTED;
    *current = *pending = number("STUB_MIG", 0);
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *gpu, unsigned *count) {
    ENTER(); (void)gpu; *count = number("STUB_MIG", 0) ? 7 : 0; return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *gpu, unsigned index, void **mig) {
    ENTER();
    if (index || !number("STUB_MIG", 0)) return NOT_FOUND;
    *mig = device(index_of(gpu), 1);
    return SUCCESS;
}
int nvmlDeviceGetVirtualizationMode(void *gpu, unsigned *mode) {
    ENTER(); (void)gpu; *mode = number("STUB_VIRTUALIZATION", 0); return SUCCESS;
}

int nvmlDeviceGetName(void *gpu, char *text, unsigned size) {
    ENTER();
    if (number("STUB_MIXED", 0)) return snprintf(text, size, "Stub GPU %d", index_of(gpu)), SUCCESS;
    return TEXT(text, size, "Stub GPU");
}
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size) { ENTER(); name_uuid(gpu, text, size); return SUCCESS; }

int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
    ENTER(); (void)gpu; *major = number("STUB_CC", 90) / 10; *minor = number("STUB_CC", 90) % 10; return SUCCESS;
}

/* The GPU's own entry of STUB_SM_MHZ, or its first. */
static unsigned sm_mhz(int index) {
    const char *at = getenv("STUB_SM_MHZ");
    if (!at) return 1700;
    for (; index && strchr(at, ','); index--) at = strchr(at, ',') + 1;
    return strtol(at, NULL, 0);
}
int nvmlDeviceGetClockInfo(void *gpu, int domain, unsigned *mhz) {
    ENTER();
    if (is_mig(gpu)) return NOT_SUPPORTED;
    *mhz = domain == 2 ? 2600 : sm_mhz(index_of(gpu));
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(void *gpu, int domain, unsigned *mhz) {
    ENTER(); (void)gpu; *mhz = domain == 2 ? 2600 : 1980; return SUCCESS;
}

int nvmlDeviceGetApplicationsClock(void *gpu, int domain, unsigned *mhz) {
    ENTER(); (void)gpu; *mhz = domain == 2 ? 2600 : 1755; return SUCCESS;
}
int nvmlDeviceGetDefaultApplicationsClock(void *gpu, int domain, unsigned *mhz) {
    ENTER(); (void)gpu; *mhz = domain == 2 ? 2600 : 1800; return SUCCESS;
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
