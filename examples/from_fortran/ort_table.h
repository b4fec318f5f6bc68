/* The part of ONNX Runtime's C interface that emulator.c uses, for machines that have the library but
 * not its header: Python's package onnxruntime is such a library.
 *
 * The interface is a table of functions that only ever grows at its end, so a function is known by its
 * place in it. emulator.c checks the places against the official header where there is one.
 */
#ifndef ORT_TABLE_H
#define ORT_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct OrtEnv OrtEnv;
typedef struct OrtStatus OrtStatus;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtModelMetadata OrtModelMetadata;

enum { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };
enum { ORT_LOGGING_LEVEL_FATAL = 4 };
enum { OrtArenaAllocator = 1 };
enum { OrtMemTypeDefault = 0 };

#define UNUSED_FROM(first, last) void *unused_##first[(last) - (first) + 1]

typedef struct OrtApi {
    UNUSED_FROM(0, 1);
    const char *(*GetErrorMessage)(const OrtStatus *);
    OrtStatus *(*CreateEnv)(int level, const char *name, OrtEnv **);
    UNUSED_FROM(4, 6);
    OrtStatus *(*CreateSession)(const OrtEnv *, const char *path, const OrtSessionOptions *,
                                OrtSession **);
    UNUSED_FROM(8, 8);
    OrtStatus *(*Run)(OrtSession *, const OrtRunOptions *, const char *const *input_names,
                      const OrtValue *const *inputs, size_t input_count,
                      const char *const *output_names, size_t output_count, OrtValue **outputs);
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **);
    UNUSED_FROM(11, 23);
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *, int);
    UNUSED_FROM(25, 29);
    OrtStatus *(*SessionGetInputCount)(const OrtSession *, size_t *);
    OrtStatus *(*SessionGetOutputCount)(const OrtSession *, size_t *);
    UNUSED_FROM(32, 32);
    OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *, size_t, OrtTypeInfo **);
    OrtStatus *(*SessionGetOutputTypeInfo)(const OrtSession *, size_t, OrtTypeInfo **);
    UNUSED_FROM(35, 35);
    OrtStatus *(*SessionGetInputName)(const OrtSession *, size_t, OrtAllocator *, char **);
    OrtStatus *(*SessionGetOutputName)(const OrtSession *, size_t, OrtAllocator *, char **);
    UNUSED_FROM(38, 48);
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *data, size_t bytes,
                                                 const int64_t *shape, size_t axes, int type,
                                                 OrtValue **);
    UNUSED_FROM(50, 54);
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *, const OrtTensorTypeAndShapeInfo **);
    UNUSED_FROM(56, 60);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *, size_t *);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *, int64_t *, size_t);
    UNUSED_FROM(63, 68);
    OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int type, OrtMemoryInfo **);
    UNUSED_FROM(70, 77);
    OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **);
    UNUSED_FROM(79, 92);
    void (*ReleaseStatus)(OrtStatus *);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo *);
    void (*ReleaseSession)(OrtSession *);
    void (*ReleaseValue)(OrtValue *);
    UNUSED_FROM(97, 97);
    void (*ReleaseTypeInfo)(OrtTypeInfo *);
    UNUSED_FROM(99, 99);
    void (*ReleaseSessionOptions)(OrtSessionOptions *);
    UNUSED_FROM(101, 110);
    OrtStatus *(*SessionGetModelMetadata)(const OrtSession *, OrtModelMetadata **);
    UNUSED_FROM(112, 115);
    OrtStatus *(*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata *, OrtAllocator *,
                                                       const char *key, char **);
    UNUSED_FROM(117, 117);
    void (*ReleaseModelMetadata)(OrtModelMetadata *);
} OrtApi;

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

const OrtApiBase *OrtGetApiBase(void);

#endif
