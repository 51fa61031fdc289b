/* Reads the tiles of a box, decodes them and puts their cells where they are wanted: one call, without the GIL.
 *
 * What _tiles.py does in Python, for machines that had a C compiler when the package was installed. Between the many short calls of the
 * Python code the reading threads wait for each other's turn at the interpreter; here they do not. The layout of tiles is TileDB's (its
 * format_spec/: a tile is a number of chunks, each with its lengths, the metadata of its filters, and a zstd frame). Whatever is not as
 * expected is refused: the caller then has TileDB read, which says what is wrong.
 *
 * zstd is not linked: bind() takes the addresses of its functions.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

static struct {
    void *(*create)(void);
    size_t (*decompress)(void *, void *, size_t, const void *, size_t);
    size_t (*release)(void *);
} zstd;

/* ---- memory of a read: kept from read to read, as fresh pages cost as much as decoding into them ------------------------------------- */

typedef struct {
    uint8_t *at;
    size_t size;
} Buffer;

typedef struct {
    void *zstd;
    Buffer packed, raw, cells;
} Workspace;

#define SLOTS 16
#define KEPT ((size_t)8 << 20) /* bytes of a buffer that is kept, at most */

static _Atomic(Workspace *) kept[SLOTS]; /* no lock, which a forked child might inherit locked */

static void drop(Workspace *space) {
    if (!space) return;
    if (space->zstd) zstd.release(space->zstd);
    free(space->packed.at);
    free(space->raw.at);
    free(space->cells.at);
    free(space);
}

static Workspace *take(void) {
    for (int slot = 0; slot < SLOTS; slot++) {
        Workspace *space = atomic_exchange(&kept[slot], NULL);
        if (space) return space;
    }
    Workspace *space = calloc(1, sizeof(Workspace));
    if (space && !(space->zstd = zstd.create())) {
        free(space);
        space = NULL;
    }
    return space;
}

static void give(Workspace *space) {
    if (space->packed.size <= KEPT && space->raw.size <= KEPT && space->cells.size <= KEPT)
        for (int slot = 0; slot < SLOTS; slot++) {
            Workspace *none = NULL;
            if (atomic_compare_exchange_strong(&kept[slot], &none, space)) return;
        }
    drop(space);
}

/* At least `size` bytes, of which the content is lost. */
static int reserve(Buffer *buffer, size_t size) {
    if (buffer->size >= size) return 1;
    free(buffer->at);
    buffer->size = 0;
    buffer->at = malloc(size);
    if (buffer->at) buffer->size = size;
    return buffer->at != NULL;
}

/* ---- rows of cells, as they are and converted ----------------------------------------------------------------------------------------- */

typedef void (*Row)(const uint8_t *from, ptrdiff_t from_step, uint8_t *to, ptrdiff_t to_step, int64_t count);

#define ROW(name, From, To)                                                                                            \
    static void name(const uint8_t *from, ptrdiff_t from_step, uint8_t *to, ptrdiff_t to_step, int64_t count) {        \
        if (from_step == sizeof(From) && to_step == sizeof(To)) {                                                      \
            const From *restrict a = (const From *)from;                                                               \
            To *restrict b = (To *)to;                                                                                 \
            for (int64_t i = 0; i < count; i++) b[i] = (To)a[i];                                                       \
        } else if (from_step == 0 && to_step == sizeof(To)) {                                                          \
            To value = (To) * (const From *)from, *b = (To *)to;                                                       \
            for (int64_t i = 0; i < count; i++) b[i] = value;                                                          \
        } else if (to_step == sizeof(To)) { /* four at a time: the loop's own work is what this one costs */            \
            To *b = (To *)to;                                                                                          \
            int64_t i = 0;                                                                                             \
            for (; i + 4 <= count; i += 4, from += 4 * from_step) {                                                    \
                To v0 = (To) * (const From *)from, v1 = (To) * (const From *)(from + from_step);                       \
                To v2 = (To) * (const From *)(from + 2 * from_step), v3 = (To) * (const From *)(from + 3 * from_step); \
                b[i] = v0, b[i + 1] = v1, b[i + 2] = v2, b[i + 3] = v3;                                                \
            }                                                                                                          \
            for (; i < count; i++, from += from_step) b[i] = (To) * (const From *)from;                                \
        } else                                                                                                         \
            for (int64_t i = 0; i < count; i++, from += from_step, to += to_step)                                      \
                *(To *)to = (To) * (const From *)from;                                                                 \
    }

ROW(copy1, uint8_t, uint8_t)
ROW(copy2, uint16_t, uint16_t)
ROW(copy4, uint32_t, uint32_t)
ROW(copy8, uint64_t, uint64_t)
ROW(float_b, int8_t, float)
ROW(float_B, uint8_t, float)
ROW(float_h, int16_t, float)
ROW(float_H, uint16_t, float)
ROW(long_b, int8_t, int64_t)
ROW(long_B, uint8_t, int64_t)
ROW(long_h, int16_t, int64_t)
ROW(long_H, uint16_t, int64_t)
ROW(long_i, int32_t, int64_t)
ROW(long_I, uint32_t, int64_t)

static Row row_of(char from, char to, int64_t itemsize) {
    static const struct {
        char from, to;
        Row row;
    } converted[] = {
        {'b', 'f', float_b}, {'B', 'f', float_B}, {'h', 'f', float_h}, {'H', 'f', float_H},
        {'b', 'l', long_b},  {'B', 'l', long_B},  {'h', 'l', long_h},  {'H', 'l', long_H},  {'i', 'l', long_i},  {'I', 'l', long_I},
    };
    if (from == to) return itemsize == 1 ? copy1 : itemsize == 2 ? copy2 : itemsize == 4 ? copy4 : itemsize == 8 ? copy8 : NULL;
    for (size_t n = 0; n < sizeof converted / sizeof *converted; n++)
        if (converted[n].from == from && converted[n].to == to) return converted[n].row;
    return NULL;
}

/* ---- a read ------------------------------------------------------------------------------------------------------------------------- */

#define PATIENCE 50000 /* nanoseconds that a read from the system's memory may take, besides a nanosecond for each byte */

#define LARGEST_TILE ((int64_t)1 << 40) /* bytes: no product of what a store says overflows */

enum { DONE = 0, SYSTEM = 1, LAYOUT = 2, MEMORY = 3 };

typedef struct {
    int64_t grid[4], tile[3]; /* tiles on x, y, z and time; cells of a tile */
    int64_t itemsize;
    int shuffle;
    const int64_t *offsets; /* of each tile in the file, and the file's size */
    const uint8_t *constant; /* whether all cells of a tile are equal */
    const uint8_t *lowest;   /* that value */
    int64_t low[3], high[3], time; /* the box: first cells, and one past the last */
    uint8_t *out;
    ptrdiff_t strides[3];
    Row row;
    const char *path;
    int file;
    int fetching; /* whether the system was told what is read next */
    int error;
    int64_t storage_ns;
    Workspace *space;
} Read;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

/* Cells first..last of a chunk of `count` cells whose bytes lie apart, lowest byte first. */
static void unshuffle(const uint8_t *raw, int64_t count, int64_t itemsize, int64_t first, int64_t last, uint8_t *restrict to) {
    const uint8_t *a = raw + first, *b = a + count;
    int64_t n = last - first;
    if (itemsize == 2) {
        for (int64_t i = 0; i < n; i++) {
            uint16_t word = (uint16_t)(a[i] | (b[i] << 8));
            memcpy(to + 2 * i, &word, 2);
        }
    } else if (itemsize == 4) {
        const uint8_t *c = b + count, *d = c + count;
        for (int64_t i = 0; i < n; i++) {
            uint32_t word = (uint32_t)a[i] | ((uint32_t)b[i] << 8) | ((uint32_t)c[i] << 16) | ((uint32_t)d[i] << 24);
            memcpy(to + 4 * i, &word, 4);
        }
    } else {
        for (int64_t byte = 0; byte < itemsize; byte++, a += count)
            for (int64_t i = 0; i < n; i++) to[i * itemsize + byte] = a[i];
    }
}

/* Decode the cells [first, last) of a tile into their places in `space->cells`, which holds a whole tile. */
static int decode(Read *r, const uint8_t *tile, int64_t length, int64_t first, int64_t last) {
    Workspace *space = r->space;
    int64_t size = r->itemsize, whole = r->tile[0] * r->tile[1] * r->tile[2] * size;
    int64_t from = first * size, to = last * size;
    uint32_t metadata = r->shuffle ? 24 : 16;
    int64_t header = 12 + metadata, at = 8, done = 0;
    uint64_t number;
    if (length < 8) return LAYOUT;
    memcpy(&number, tile, 8);
    for (uint64_t chunk = 0; chunk < number; chunk++) {
        if (length - at < header) return LAYOUT;
        const uint8_t *h = tile + at;
        int64_t raw = u32(h), filtered = u32(h + 4);
        /* Metadata: how many bytes are metadata and how many parts there are, then of each part its length before and after the filter.
         * Shuffling has its lengths before the chunk's bytes, as a part of its own. */
        const uint8_t *parts = h + 12 + (r->shuffle ? 8 : 0);
        int64_t skipped = r->shuffle ? u32(h + 24) : 0;
        if (u32(h + 8) != metadata || u32(h + 12) != (uint32_t)r->shuffle || u32(h + 16) != 1) return LAYOUT;
        if (u32(parts + 8) != raw || skipped + (int64_t)u32(parts + 12) != filtered) return LAYOUT;
        at += header;
        if (length - at < filtered || skipped > filtered || raw > whole - done || raw % size) return LAYOUT;
        if (done < to && done + raw > from) {
            uint8_t *cells = space->cells.at + done, *into = cells;
            if (r->shuffle) {
                if (!reserve(&space->raw, raw)) return MEMORY;
                into = space->raw.at;
            }
            size_t got = zstd.decompress(space->zstd, into, raw, tile + at + skipped, filtered - skipped);
            if (got != (size_t)raw) return LAYOUT; /* errors are numbers larger than any length */
            if (r->shuffle) {
                int64_t a = (done > from ? 0 : from - done) / size, b = (done + raw < to ? raw : to - done) / size;
                unshuffle(into, raw / size, size, a, b, cells + a * size);
            }
        }
        at += filtered;
        done += raw;
    }
    return at == length && done == whole ? DONE : LAYOUT;
}

#ifdef __SSE2__
/* Turn a plane of cells of 2 bytes: those that follow each other in `from`, `m` of them, are `to_step` apart in `to`; of the `n` that follow
 * each other there, they are `from_step` apart. Blocks of 8 x 8 in registers: blocks of axial slices are mostly this. */
static void turn2(const uint8_t *from, ptrdiff_t from_step, uint8_t *to, ptrdiff_t to_step, int64_t m, int64_t n) {
    for (int64_t a = 0; a < m; a += 8)
        for (int64_t b = 0; b < n; b += 8) {
            const uint8_t *source = from + b * from_step + 2 * a;
            uint8_t *place = to + a * to_step + 2 * b;
            int64_t high = m - a < 8 ? m - a : 8, wide = n - b < 8 ? n - b : 8;
            if (high < 8 || wide < 8) {
                for (int64_t i = 0; i < high; i++)
                    for (int64_t j = 0; j < wide; j++) memcpy(place + i * to_step + 2 * j, source + j * from_step + 2 * i, 2);
                continue;
            }
            __m128i row[8], pair[8], quad[8];
            for (int j = 0; j < 8; j++) row[j] = _mm_loadu_si128((const __m128i *)(source + j * from_step));
            for (int j = 0; j < 4; j++) {
                pair[2 * j] = _mm_unpacklo_epi16(row[2 * j], row[2 * j + 1]);
                pair[2 * j + 1] = _mm_unpackhi_epi16(row[2 * j], row[2 * j + 1]);
            }
            for (int half = 0; half < 8; half += 4)
                for (int j = 0; j < 2; j++) {
                    quad[half + 2 * j] = _mm_unpacklo_epi32(pair[half + j], pair[half + 2 + j]);
                    quad[half + 2 * j + 1] = _mm_unpackhi_epi32(pair[half + j], pair[half + 2 + j]);
                }
            for (int j = 0; j < 4; j++) {
                _mm_storeu_si128((__m128i *)(place + 2 * j * to_step), _mm_unpacklo_epi64(quad[j], quad[4 + j]));
                _mm_storeu_si128((__m128i *)(place + (2 * j + 1) * to_step), _mm_unpackhi_epi64(quad[j], quad[4 + j]));
            }
        }
}
#endif

static ptrdiff_t distance(ptrdiff_t stride) {
    return stride < 0 ? -stride : stride;
}

/* Put the cells of a box where they belong; `from` is the box's first cell. */
static void place(const Read *r, const uint8_t *from, const ptrdiff_t *from_strides, uint8_t *to, const int64_t *counts) {
    /* The innermost loop is along the axis that is contiguous in `out`, whatever its order; never along one of a single cell, whose
     * stride says nothing. The outermost one is along that which is slower in the tile: the plane that is turned stays in the cache. */
    int k = 2;
    for (int axis = 1; axis >= 0; axis--)
        if (counts[k] == 1 || (counts[axis] > 1 && distance(r->strides[axis]) < distance(r->strides[k]))) k = axis;
    int i = k == 0, j = k == 2 ? 1 : 2;
#ifdef __SSE2__
    if (r->row == copy2 && from_strides[j] == 2 && r->strides[k] == 2) {
        for (int64_t a = 0; a < counts[i]; a++)
            turn2(from + a * from_strides[i], from_strides[k], to + a * r->strides[i], r->strides[j], counts[j], counts[k]);
        return;
    }
#endif
    for (int64_t a = 0; a < counts[i]; a++)
        for (int64_t b = 0; b < counts[j]; b++)
            r->row(from + a * from_strides[i] + b * from_strides[j], from_strides[k],
                   to + a * r->strides[i] + b * r->strides[j], r->strides[k], counts[k]);
}

/* The first tile of a row in the file's order. */
static int64_t number_of(const Read *r, int64_t i, int64_t j, int64_t k) {
    return ((i * r->grid[1] + j) * r->grid[2] + k) * r->grid[3] + r->time;
}

/* Bytes of the file that hold `count` tiles from `number` on, from `*start` on, without those at both ends that need not be read; negative
 * where the offsets cannot be. */
static int64_t bytes_of(const Read *r, int64_t number, int64_t count, int64_t *start) {
    int64_t first = -1, last = -1;
    for (int64_t n = number; n < number + count; n++)
        if (!r->constant[n]) {
            if (first < 0) first = n;
            last = n;
        }
    if (first < 0) return *start = 0;
    *start = r->offsets[first];
    return r->offsets[last + 1] - *start;
}

/* Have the system fetch the rows of the box that come after tile row i, j, all at once: where the file is not in memory, waiting for one
 * after the other takes several times as long. */
static void fetch_ahead(const Read *r, int64_t i, int64_t j) {
#ifdef POSIX_FADV_WILLNEED
    const int64_t *tile = r->tile, *low = r->low, *high = r->high;
    int64_t k0 = low[2] / tile[2], k1 = (high[2] - 1) / tile[2];
    int64_t j0 = low[1] / tile[1], j1 = (high[1] - 1) / tile[1], i1 = (high[0] - 1) / tile[0], start;
    int64_t at_once = r->grid[3] == 1 ? k1 - k0 + 1 : 1;
    for (j++; i <= i1; i++, j = j0)
        for (; j <= j1; j++)
            for (int64_t k = k0; k <= k1; k += at_once) {
                int64_t length = bytes_of(r, number_of(r, i, j, k), at_once, &start);
                if (length > 0) posix_fadvise(r->file, start, length, POSIX_FADV_WILLNEED);
            }
#endif
}

/* Read and put in place the tiles of one row, which follow each other in the file, or one of a volume with time points. */
static int run(Read *r, int64_t i, int64_t j, int64_t k0, int64_t k1) {
    const int64_t *tile = r->tile;
    int64_t size = r->itemsize, number = number_of(r, i, j, k0), start;
    int64_t length = bytes_of(r, number, k1 - k0 + 1, &start);
    if (length < 0) return LAYOUT;
    if (length > 0) {
        int64_t began = now(), got = 0;
        if (r->file < 0 && (r->file = open(r->path, O_RDONLY | O_CLOEXEC)) < 0) return r->error = errno, SYSTEM;
        if (!reserve(&r->space->packed, length)) return MEMORY;
        while (got < length) {
            ssize_t n = pread(r->file, r->space->packed.at + got, length - got, start + got);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return r->error = errno, SYSTEM;
            if (n == 0) return LAYOUT;
            got += n;
        }
        int64_t took = now() - began;
        r->storage_ns += took;
        if (!r->fetching && took > PATIENCE + length) {
            r->fetching = 1;
            fetch_ahead(r, i, j);
        }
    }
    for (int64_t k = k0; k <= k1; k++) {
        int64_t n = number + (k - k0), corner[3] = {i * tile[0], j * tile[1], k * tile[2]}, counts[3], skip[3];
        uint8_t *to = r->out;
        for (int axis = 0; axis < 3; axis++) {
            int64_t low = corner[axis] > r->low[axis] ? corner[axis] : r->low[axis];
            int64_t end = corner[axis] + tile[axis], high = end < r->high[axis] ? end : r->high[axis];
            counts[axis] = high - low;
            skip[axis] = low - corner[axis];
            to += (low - r->low[axis]) * r->strides[axis];
        }
        if (r->constant[n]) {
            ptrdiff_t still[3] = {0, 0, 0};
            place(r, r->lowest + n * size, still, to, counts);
            continue;
        }
        int64_t plane = tile[1] * tile[2];
        int failed = decode(r, r->space->packed.at + (r->offsets[n] - start), r->offsets[n + 1] - r->offsets[n],
                            skip[0] * plane, (skip[0] + counts[0]) * plane);
        if (failed) return failed;
        ptrdiff_t strides[3] = {plane * size, tile[2] * size, size};
        place(r, r->space->cells.at + (skip[0] * plane + skip[1] * tile[2] + skip[2]) * size, strides, to, counts);
    }
    return DONE;
}

static int read_box(Read *r) {
    const int64_t *tile = r->tile, *low = r->low, *high = r->high;
    if (!(r->space = take())) return MEMORY;
    int failed = reserve(&r->space->cells, tile[0] * tile[1] * tile[2] * r->itemsize) ? DONE : MEMORY;
    int64_t k0 = low[2] / tile[2], k1 = (high[2] - 1) / tile[2];
    for (int64_t i = low[0] / tile[0]; !failed && i <= (high[0] - 1) / tile[0]; i++)
        for (int64_t j = low[1] / tile[1]; !failed && j <= (high[1] - 1) / tile[1]; j++)
            if (r->grid[3] == 1)
                failed = run(r, i, j, k0, k1);
            else /* other time points lie between them */
                for (int64_t k = k0; !failed && k <= k1; k++) failed = run(r, i, j, k, k);
    if (r->file >= 0) close(r->file);
    give(r->space);
    return failed;
}

/* ---- Python ---------------------------------------------------------------------------------------------------------------------------- */

static PyObject *py_bind(PyObject *module, PyObject *args) {
    unsigned long long create, decompress, release;
    if (!PyArg_ParseTuple(args, "KKK", &create, &decompress, &release)) return NULL;
    zstd.create = (void *(*)(void))(uintptr_t)create;
    zstd.decompress = (size_t(*)(void *, void *, size_t, const void *, size_t))(uintptr_t)decompress;
    zstd.release = (size_t(*)(void *))(uintptr_t)release;
    Py_RETURN_NONE;
}

/* The product of factors of at least 1, or -1 where one is smaller or the product larger than `limit`. */
static int64_t product(const int64_t *factors, int count, int64_t limit) {
    int64_t result = 1;
    for (int n = 0; n < count; n++) {
        if (factors[n] < 1 || factors[n] > limit / result) return -1;
        result *= factors[n];
    }
    return result;
}

/* The box lies in the array and in `out`, and all tiles that it touches are counted. */
static int fits(const Read *r, const int64_t *shape, const Py_buffer *out, Py_ssize_t tiles) {
    if (tiles < 1 || r->itemsize < 1 || product(r->grid, 4, tiles) != tiles) return 0;
    if (product(r->tile, 3, LARGEST_TILE / r->itemsize) < 0) return 0;
    for (int axis = 0; axis < 3; axis++) {
        if (r->low[axis] < 0 || r->low[axis] >= r->high[axis] || r->high[axis] > shape[axis]) return 0;
        if ((shape[axis] - 1) / r->tile[axis] >= r->grid[axis]) return 0;
        if (out->shape[axis] != r->high[axis] - r->low[axis]) return 0;
    }
    return r->time >= 0 && r->time < r->grid[3];
}

static PyObject *py_read(PyObject *module, PyObject *args) {
    Py_buffer offsets, constant, lowest, out;
    Read r = {.file = -1};
    int64_t shape[3];
    int from, to;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y(LLL)(LLL)(LLLL)pCCy*y*y*((LL)(LL)(LL))LO:read", &r.path, &shape[0], &shape[1], &shape[2], &r.tile[0],
                          &r.tile[1], &r.tile[2], &r.grid[0], &r.grid[1], &r.grid[2], &r.grid[3], &r.shuffle, &from, &to, &offsets,
                          &constant, &lowest, &r.low[0], &r.high[0], &r.low[1], &r.high[1], &r.low[2], &r.high[2], &r.time, &result))
        return NULL;
    PyObject *target = result;
    result = NULL;
    if (PyObject_GetBuffer(target, &out, PyBUF_WRITABLE | PyBUF_STRIDES) == 0) {
        Py_ssize_t tiles = constant.len;
        r.itemsize = tiles ? lowest.len / tiles : 0;
        r.row = row_of((char)from, (char)to, r.itemsize);
        int width = to == 'f' && from != 'f' ? 4 : to == 'l' && from != 'l' ? 8 : (int)r.itemsize;
        if (!zstd.create || !r.row || out.ndim != 3 || out.itemsize != width || offsets.len != (tiles + 1) * 8 ||
            lowest.len != tiles * r.itemsize || !fits(&r, shape, &out, tiles)) {
            PyErr_SetString(PyExc_ValueError, "the box, the tiles and the memory do not fit each other");
        } else {
            r.offsets = offsets.buf;
            r.constant = constant.buf;
            r.lowest = lowest.buf;
            r.out = out.buf;
            for (int axis = 0; axis < 3; axis++) r.strides[axis] = out.strides[axis];
            int outcome;
            Py_BEGIN_ALLOW_THREADS
            outcome = read_box(&r);
            Py_END_ALLOW_THREADS
            if (outcome == SYSTEM) {
                errno = r.error;
                PyErr_SetFromErrnoWithFilename(PyExc_OSError, r.path);
            } else if (outcome == MEMORY) {
                PyErr_NoMemory();
            } else {
                result = outcome == DONE ? PyFloat_FromDouble(r.storage_ns * 1e-9) : Py_NewRef(Py_None);
            }
        }
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&constant);
    PyBuffer_Release(&lowest);
    return result;
}

static PyMethodDef methods[] = {
    {"bind", py_bind, METH_VARARGS, "bind(create, decompress, release): the addresses of zstd's functions for a decompression context."},
    {"read", py_read, METH_VARARGS,
     "read(path, shape, tile, grid, shuffle, stored, wanted, offsets, constant, lowest, box, time, out): seconds spent on reading the "
     "file; None where a tile is not as expected."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_decode", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__decode(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddStringConstant(module, "SOURCE", SOURCE) < 0) { /* SHA-256 of this file, from hatch_build.py */
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
