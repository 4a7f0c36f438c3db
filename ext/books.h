/*
 * Which offset is safe to commit, and the books below it: one line a record, from the first with an unresolved span on.
 * The twin of src/spanloom/core/offsets.py. What a line received is what was resolved and what was not, so it is not
 * written down; and a line says what was lost to retention only where it says nothing else.
 */
#ifndef SPANLOOM_BOOKS_H
#define SPANLOOM_BOOKS_H

#include <assert.h>

#include "memory.h"

/* The fields of Tally, in their order. */
typedef enum {
    SL_RECEIVED,
    SL_STORED,
    SL_DUPLICATE,
    SL_NOT_SAMPLED,
    SL_LATE,
    SL_PRESSURE_DROPPED,
    SL_MOVED,
    SL_DEAD_LETTERED,
    SL_LOST,
    SL_CONFLICTING,
    SL_TALLY_FIELDS,
} sl_count;

typedef struct {
    uint64_t counts[SL_TALLY_FIELDS];
} sl_tally;

typedef struct {
    uint64_t offset;
    int64_t stream_ns, last_timestamp_ns; /* before the record was read */
    uint32_t unresolved;
    uint32_t counts[SL_TALLY_FIELDS - 1]; /* by field - 1 */
} sl_line;

SL_QUEUE(sl_lines, sl_line)

typedef struct {
    sl_tally total;   /* everything read so far */
    sl_tally settled; /* below the first line */
    sl_lines lines;   /* a line is named by its sequence number */
} sl_books;

static inline void sl_books_start(sl_books *books, const sl_tally *tally) {
    sl_lines_free(&books->lines);
    books->total = books->settled = *tally;
}

/* Settle the lines that are wholly resolved. */
static inline void sl_books_settle(sl_books *books) {
    while (sl_lines_count(&books->lines)) {
        const sl_line *line = sl_lines_at(&books->lines, books->lines.head);
        if (line->unresolved) return;
        for (int field = SL_STORED; field < SL_TALLY_FIELDS; field++) {
            uint32_t count = line->counts[field - 1];
            books->settled.counts[field] += count;
            if (field != SL_CONFLICTING) books->settled.counts[SL_RECEIVED] += count;
        }
        sl_lines_drop(&books->lines);
    }
}

/* Open the line of the next record: its number in *number*. */
static inline int sl_books_begin(sl_books *books, uint64_t offset, int64_t stream_ns, int64_t last_timestamp_ns,
                                 uint64_t *number) {
    sl_books_settle(books);
    sl_line *line = sl_lines_add(&books->lines);
    if (!line) return SL_NO_MEMORY;
    *line = (sl_line){.offset = offset, .stream_ns = stream_ns, .last_timestamp_ns = last_timestamp_ns};
    *number = books->lines.tail - 1;
    return SL_OK;
}

static inline void sl_books_receive(sl_books *books, uint64_t number, uint32_t count) {
    sl_lines_at(&books->lines, number)->unresolved += count;
    books->total.counts[SL_RECEIVED] += count;
}

/* Count something of a record that settles nothing. */
static inline void sl_books_note(sl_books *books, uint64_t number, sl_count field, uint32_t count) {
    sl_lines_at(&books->lines, number)->counts[field - 1] += count;
    books->total.counts[field] += count;
}

/* It is settled what became of *count* spans. */
static inline void sl_books_resolve(sl_books *books, uint64_t number, sl_count field, uint32_t count) {
    sl_line *line = sl_lines_at(&books->lines, number);
    assert(number >= books->lines.head && line->unresolved >= count);
    line->unresolved -= count;
    sl_books_note(books, number, field, count);
}

#endif
