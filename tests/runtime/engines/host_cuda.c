/* The part of the CUDA driver's interface that mer_runtime.cuda calls, on host memory.
 *
 * Prototypes are cuda.h's, so a wrong argument on our side crashes or computes nonsense. A stream
 * runs at once, or records while it is captured; a graph replays what was recorded. Addresses on
 * the "GPU" lie above 4 GB, as real ones do, and only copies can reach what is behind them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define OFFSET 0x700000000000ULL
#define MAX_STEPS 64

typedef struct {
    void *target;
    const void *source;
    size_t size;
    int (*function)(void);
} Step;

typedef struct {
    int count;
    Step steps[MAX_STEPS];
} Graph;

typedef struct {
    int capturing;
    Graph *graph;
} Stream;

static int context;
static int allocated;
static int launches;

int stub_allocated(void) { return allocated; }
int stub_launches(void) { return launches; }

static int run(Step step) {
    if (step.function)
        return step.function();
    memcpy(step.target, step.source, step.size);
    return 0;
}

static int queue(Stream *stream, Step step) {
    if (!stream->capturing)
        return run(step);
    if (stream->graph->count == MAX_STEPS)
        return 900;
    stream->graph->steps[stream->graph->count++] = step;
    return 0;
}

/* What an engine does: put its work on a stream. */
int stub_enqueue(void *stream, int (*function)(void)) {
    Step step = {0, 0, 0, function};
    return queue(stream, step);
}

void *stub_memory(unsigned long long address) { return (void *)(uintptr_t)(address - OFFSET); }

int cuInit(unsigned int flags) { return getenv("STUB_NO_GPU") ? 100 : flags; }
int cuGetErrorString(int error, const char **text) {
    *text = error == 100 ? "no CUDA-capable device is detected" : "some error";
    return 0;
}
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 5; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 5 ? "Host GPU" : "?", size);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = device != 5 ? -1 : attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return device != 5; }
int cuCtxSetCurrent(void *wanted) { return wanted == &context ? 0 : 201; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    if (size > 1 << 30)
        return 2;
    *address = (uintptr_t)malloc(size) + OFFSET;
    allocated++;
    return 0;
}
int cuMemFree_v2(unsigned long long address) { free(stub_memory(address)); allocated--; return 0; }
int cuMemHostAlloc(void **memory, size_t size, unsigned int flags) {
    *memory = malloc(size);
    allocated++;
    return flags;
}
int cuMemFreeHost(void *memory) { free(memory); allocated--; return 0; }
int cuMemcpyHtoDAsync_v2(unsigned long long target, const void *source, size_t size, void *stream) {
    Step step = {stub_memory(target), source, size, 0};
    return queue(stream, step);
}
int cuMemcpyDtoHAsync_v2(void *target, unsigned long long source, size_t size, void *stream) {
    Step step = {target, stub_memory(source), size, 0};
    return queue(stream, step);
}
int cuStreamCreate(void **stream, unsigned int flags) {
    *stream = calloc(1, sizeof(Stream));
    allocated++;
    return flags != 1;
}
int cuStreamDestroy_v2(void *stream) { free(stream); allocated--; return 0; }
int cuStreamSynchronize(void *stream) { return ((Stream *)stream)->capturing ? 900 : 0; }
int cuStreamBeginCapture_v2(void *stream, int mode) {
    ((Stream *)stream)->capturing = 1;
    ((Stream *)stream)->graph = calloc(1, sizeof(Graph));
    allocated++;
    return mode != 1;
}
int cuStreamEndCapture(void *stream, void **graph) {
    ((Stream *)stream)->capturing = 0;
    *graph = ((Stream *)stream)->graph;
    return 0;
}
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    if (getenv("STUB_NO_GRAPHS"))
        return 801;
    *made = memcpy(malloc(sizeof(Graph)), graph, sizeof(Graph));
    allocated++;
    return (int)flags;
}
int cuGraphLaunch(void *made, void *stream) {
    Graph *graph = made;
    launches++;
    for (int i = 0; i < graph->count; i++)
        if (queue(stream, graph->steps[i]))
            return 719;
    return 0;
}
int cuGraphDestroy(void *graph) { free(graph); allocated--; return 0; }
int cuGraphExecDestroy(void *made) { free(made); allocated--; return 0; }
