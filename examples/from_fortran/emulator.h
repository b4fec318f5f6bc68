/* An exported emulator in C: windows of physical fields in, windows of physical fields out.
 *
 * A field of C channels on a grid of n0 x n1 x n2 cells is an array float[batch][C][n0][n1][n2], the
 * last axis contiguous; on fewer axes likewise. Sizes are given in that order. Functions that can fail
 * return 0 if all went well, and m2m_error() says what did not. A file is not written to, and may be
 * used by several threads at once.
 */
#ifndef M2M_EMULATOR_H
#define M2M_EMULATOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct m2m_emulator m2m_emulator;

enum { M2M_INPUT = 0, M2M_OUTPUT = 1 };

/* What went wrong last in this thread. */
const char *m2m_error(void);

/* Read what `m2m export --to onnx` has written; NULL if that fails.
 * threads: of one run; 0 for as many as there are cores, 1 in a program with a process per core. */
m2m_emulator *m2m_load(const char *path, int threads);
void m2m_free(m2m_emulator *emulator);

/* Number of axes; fields on a side, their names and channels. */
int m2m_ndim(const m2m_emulator *emulator);
int m2m_fields(const m2m_emulator *emulator, int side);
const char *m2m_name(const m2m_emulator *emulator, int side, int field);
int64_t m2m_channels(const m2m_emulator *emulator, int side, int field);

/* The card: fields with units, norms, training files, as JSON. */
const char *m2m_card(const m2m_emulator *emulator);

/* Which window to read for a crop of so many cells, for each axis: its size, how many of its cells lie
 * below the crop, and which cell of the output is the first of the crop. The crop has to start at a
 * multiple of m2m_multiple() cells, and has m2m_scale() output cells per cell. */
int m2m_window(const m2m_emulator *emulator, const int64_t *crop, int64_t *size, int64_t *low,
               int64_t *first);
int64_t m2m_multiple(const m2m_emulator *emulator);
int64_t m2m_scale(const m2m_emulator *emulator);

/* Sizes of the output for a window of so many cells; fails if the emulator does not take them. */
int m2m_output(const m2m_emulator *emulator, const int64_t *size, int64_t *output);

/* Run so many windows; an array per field, in the order of m2m_name, all of them allocated. */
int m2m_run(const m2m_emulator *emulator, int64_t batch, const int64_t *size,
            const float *const *inputs, float *const *outputs);

#ifdef __cplusplus
}
#endif
#endif
