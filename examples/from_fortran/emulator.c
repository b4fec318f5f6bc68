/* emulator.h on ONNX Runtime. */
#include "emulator.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_include) && __has_include("onnxruntime_c_api.h")
#include "onnxruntime_c_api.h"
#else
#include "ort_table.h"
#endif

#define PLACE(function, place)                                            \
    _Static_assert(offsetof(OrtApi, function) == (place) * sizeof(void *), \
                   #function " is not where ONNX Runtime has it")
PLACE(Run, 9);
PLACE(SetIntraOpNumThreads, 24);
PLACE(SessionGetOutputName, 37);
PLACE(CreateTensorWithDataAsOrtValue, 49);
PLACE(CastTypeInfoToTensorInfo, 55);
PLACE(GetDimensions, 62);
PLACE(CreateCpuMemoryInfo, 69);
PLACE(GetAllocatorWithDefaultOptions, 78);
PLACE(ReleaseStatus, 93);
PLACE(ReleaseSessionOptions, 100);
PLACE(SessionGetModelMetadata, 111);
PLACE(ModelMetadataLookupCustomMetadataMap, 116);
PLACE(ReleaseModelMetadata, 118);

enum { API_VERSION = 10, MOST_AXES = 3, MOST_FIELDS = 64 };

struct m2m_emulator {
    OrtSession *session;
    OrtMemoryInfo *memory;
    int ndim, count[2];
    char *names[2][MOST_FIELDS]; /* the runtime's memory, kept until the program ends */
    int64_t channels[2][MOST_FIELDS];
    int64_t fixed[MOST_AXES]; /* the only size there is, or -1 */
    int64_t margin, multiple, scale, cut, remainder, minimum, low, first;
    char *card;
};

static const OrtApi *ort;
static OrtEnv *environment;
static _Thread_local char message[512];

const char *m2m_error(void) { return message; }

static int failed(OrtStatus *status) {
    if (status == NULL) return 0;
    snprintf(message, sizeof message, "%s", ort->GetErrorMessage(status));
    ort->ReleaseStatus(status);
    return 1;
}

static int start(void) {
    if (environment != NULL) return 0;
    ort = OrtGetApiBase()->GetApi(API_VERSION);
    if (ort == NULL) {
        snprintf(message, sizeof message, "ONNX Runtime %s is too old, or too new",
                 OrtGetApiBase()->GetVersionString());
        return 1;
    }
    return failed(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "map2map", &environment));
}

/* The text of a key, NULL if there is none. */
static char *text_of(OrtModelMetadata *metadata, OrtAllocator *allocator, const char *key) {
    char *text = NULL;
    if (failed(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, key, &text)))
        return NULL;
    if (text == NULL)
        snprintf(message, sizeof message, "the file says nothing of %s; m2m export has not written it",
                 key);
    return text;
}

static int read_metadata(m2m_emulator *e, OrtAllocator *allocator) {
    const struct { const char *key; int64_t *value; } numbers[] = {
        {"map2map.margin", &e->margin},       {"map2map.multiple", &e->multiple},
        {"map2map.scale", &e->scale},         {"map2map.cut", &e->cut},
        {"map2map.remainder", &e->remainder}, {"map2map.minimum", &e->minimum},
        {"map2map.low", &e->low},             {"map2map.first", &e->first}};
    OrtModelMetadata *metadata = NULL;
    if (failed(ort->SessionGetModelMetadata(e->session, &metadata))) return 1;
    int bad = (e->card = text_of(metadata, allocator, "map2map")) == NULL;
    for (size_t i = 0; !bad && i < sizeof numbers / sizeof *numbers; i++) {
        const char *text = text_of(metadata, allocator, numbers[i].key);
        bad = text == NULL;
        if (!bad) *numbers[i].value = strtoll(text, NULL, 10);
    }
    ort->ReleaseModelMetadata(metadata);
    return bad;
}

/* Name, channels and sizes of one field; every field has the same number of axes. */
static int read_field(m2m_emulator *e, OrtAllocator *allocator, int side, int field) {
    int64_t shape[MOST_AXES + 2];
    size_t axes = 0;
    OrtTypeInfo *type = NULL;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    if (failed(side == M2M_INPUT
                   ? ort->SessionGetInputName(e->session, field, allocator, &e->names[side][field])
                   : ort->SessionGetOutputName(e->session, field, allocator, &e->names[side][field])))
        return 1;
    if (failed(side == M2M_INPUT ? ort->SessionGetInputTypeInfo(e->session, field, &type)
                                 : ort->SessionGetOutputTypeInfo(e->session, field, &type)))
        return 1;
    int bad = failed(ort->CastTypeInfoToTensorInfo(type, &tensor)) ||
              failed(ort->GetDimensionsCount(tensor, &axes));
    if (!bad && (axes < 3 || axes > MOST_AXES + 2)) {
        snprintf(message, sizeof message, "%s has %zu axes, not batch, channel and 1 to %d of space",
                 e->names[side][field], axes, MOST_AXES);
        bad = 1;
    }
    bad = bad || failed(ort->GetDimensions(tensor, shape, axes));
    ort->ReleaseTypeInfo(type);
    if (bad) return 1;
    e->ndim = (int)axes - 2;
    e->channels[side][field] = shape[1];
    for (int axis = 0; side == M2M_INPUT && axis < e->ndim; axis++) e->fixed[axis] = shape[axis + 2];
    return 0;
}

m2m_emulator *m2m_load(const char *path, int threads) {
    OrtSessionOptions *options = NULL;
    OrtAllocator *allocator = NULL;
    size_t inputs = 0, outputs = 0;
    if (start()) return NULL;
    m2m_emulator *e = calloc(1, sizeof *e);
    if (e == NULL) {
        snprintf(message, sizeof message, "out of memory");
        return NULL;
    }
    int bad = failed(ort->CreateSessionOptions(&options)) ||
              failed(ort->SetIntraOpNumThreads(options, threads)) ||
              failed(ort->CreateSession(environment, path, options, &e->session)) ||
              failed(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &e->memory)) ||
              failed(ort->GetAllocatorWithDefaultOptions(&allocator)) ||
              failed(ort->SessionGetInputCount(e->session, &inputs)) ||
              failed(ort->SessionGetOutputCount(e->session, &outputs));
    if (options != NULL) ort->ReleaseSessionOptions(options);
    if (!bad && (inputs > MOST_FIELDS || outputs > MOST_FIELDS)) {
        snprintf(message, sizeof message, "%s has more than %d fields", path, MOST_FIELDS);
        bad = 1;
    }
    bad = bad || read_metadata(e, allocator);
    e->count[M2M_INPUT] = (int)inputs;
    e->count[M2M_OUTPUT] = (int)outputs;
    for (int side = 0; side < 2; side++)
        for (int field = 0; !bad && field < e->count[side]; field++)
            bad = read_field(e, allocator, side, field);
    if (!bad) return e;
    m2m_free(e);
    return NULL;
}

void m2m_free(m2m_emulator *e) {
    if (e == NULL) return;
    if (e->session != NULL) ort->ReleaseSession(e->session);
    if (e->memory != NULL) ort->ReleaseMemoryInfo(e->memory);
    free(e);
}

int m2m_ndim(const m2m_emulator *e) { return e->ndim; }
int m2m_fields(const m2m_emulator *e, int side) { return e->count[side]; }
const char *m2m_name(const m2m_emulator *e, int side, int field) { return e->names[side][field]; }
int64_t m2m_channels(const m2m_emulator *e, int side, int field) { return e->channels[side][field]; }
const char *m2m_card(const m2m_emulator *e) { return e->card; }
int64_t m2m_multiple(const m2m_emulator *e) { return e->multiple; }
int64_t m2m_scale(const m2m_emulator *e) { return e->scale; }

static int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* As map2map's footprints.Footprint.halo_for. */
int m2m_window(const m2m_emulator *e, const int64_t *crop, int64_t *size, int64_t *low,
               int64_t *first) {
    const int valid = (e->cut + e->scale - 1) / e->scale == e->margin;
    for (int axis = 0; axis < e->ndim; axis++) {
        if (crop[axis] < 1) {
            snprintf(message, sizeof message, "a crop needs at least one cell on axis %d", axis);
            return 1;
        }
        int64_t n = e->low + (valid ? crop[axis] : round_up(crop[axis], e->multiple)) + e->margin;
        if (n < e->minimum) n = e->minimum;
        while (n % e->multiple != e->remainder) n++;
        size[axis] = n;
        low[axis] = e->low;
        first[axis] = e->first;
    }
    return 0;
}

int m2m_output(const m2m_emulator *e, const int64_t *size, int64_t *output) {
    for (int axis = 0; axis < e->ndim; axis++) {
        const int64_t n = size[axis];
        if (e->fixed[axis] > 0 && n != e->fixed[axis]) {
            snprintf(message, sizeof message,
                     "the emulator was exported for %lld cells on axis %d, not %lld",
                     (long long)e->fixed[axis], axis, (long long)n);
            return 1;
        }
        if (n < e->minimum || n % e->multiple != e->remainder) {
            snprintf(message, sizeof message,
                     "the emulator cannot take %lld cells (axis %d): sizes are %lld, %lld, ...",
                     (long long)n, axis, (long long)e->minimum,
                     (long long)(e->minimum + e->multiple));
            return 1;
        }
        output[axis] = e->scale * n - 2 * e->cut;
    }
    return 0;
}

/* A tensor on memory of the caller's. */
static int wrap(const m2m_emulator *e, const float *data, int64_t batch, int64_t channels,
                const int64_t *size, OrtValue **value) {
    int64_t shape[MOST_AXES + 2] = {batch, channels};
    size_t cells = (size_t)(batch * channels);
    for (int axis = 0; axis < e->ndim; axis++) {
        shape[axis + 2] = size[axis];
        cells *= (size_t)size[axis];
    }
    return failed(ort->CreateTensorWithDataAsOrtValue(
        e->memory, (void *)data, cells * sizeof *data, shape, (size_t)e->ndim + 2,
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, value));
}

int m2m_run(const m2m_emulator *e, int64_t batch, const int64_t *size, const float *const *inputs,
            float *const *outputs) {
    OrtValue *values[2][MOST_FIELDS] = {{NULL}};
    int64_t after[MOST_AXES];
    int bad = m2m_output(e, size, after);
    for (int i = 0; !bad && i < e->count[M2M_INPUT]; i++)
        bad = wrap(e, inputs[i], batch, e->channels[M2M_INPUT][i], size, &values[M2M_INPUT][i]);
    for (int i = 0; !bad && i < e->count[M2M_OUTPUT]; i++)
        bad = wrap(e, outputs[i], batch, e->channels[M2M_OUTPUT][i], after, &values[M2M_OUTPUT][i]);
    bad = bad || failed(ort->Run(e->session, NULL, (const char *const *)e->names[M2M_INPUT],
                                 (const OrtValue *const *)values[M2M_INPUT],
                                 (size_t)e->count[M2M_INPUT],
                                 (const char *const *)e->names[M2M_OUTPUT],
                                 (size_t)e->count[M2M_OUTPUT], values[M2M_OUTPUT]));
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < e->count[side]; i++)
            if (values[side][i] != NULL) ort->ReleaseValue(values[side][i]);
    return bad;
}
