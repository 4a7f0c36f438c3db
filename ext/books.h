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

/*
 * A record's line. Its spans may end in as many ways as there are spans, and conflict besides; a record of few has room
 * for those ways in its line, the counts of a wide one are in a slot of their own behind it.
 */
#define SL_LINE_WAYS 4
#define SL_LINE_SPANS (SL_LINE_WAYS - 1)

typedef struct {
    uint64_t offset;
    int64_t stream_ns, last_timestamp_ns; /* before the record was read */
    uint32_t unresolved : 31, is_wide : 1;
    uint8_t ways[SL_LINE_WAYS]; /* an sl_count each; 0: none */
    uint32_t counts[SL_LINE_WAYS];
} sl_line;

typedef union {
    sl_line line;
    uint32_t counts[SL_TALLY_FIELDS]; /* of the line before it; by sl_count */
} sl_line_slot;

SL_LONG_QUEUE(sl_lines, sl_line_slot)

typedef struct {
    sl_tally total;   /* everything read so far */
    sl_tally settled; /* below the first line */
    sl_lines lines;   /* a line is named by its sequence number */
} sl_books;

static inline void sl_books_start(sl_books *books, const sl_tally *tally) {
    sl_lines_free(&books->lines);
    books->total = books->settled = *tally;
}

/* The number of an unsettled line, from its lower half. */
static inline uint64_t sl_books_number(const sl_books *books, uint32_t low) {
    return books->lines.head + (uint32_t)(low - (uint32_t)books->lines.head);
}

/* The first line that is not settled, or NULL. */
static inline const sl_line *sl_books_first(const sl_books *books) {
    return sl_lines_count(&books->lines) ? &sl_lines_at(&books->lines, books->lines.head)->line : NULL;
}

static inline void sl_books_settle_way(sl_books *books, int way, uint32_t count) {
    books->settled.counts[way] += count;
    if (way != SL_CONFLICTING) books->settled.counts[SL_RECEIVED] += count;
}

/* Settle the lines that are wholly resolved. */
static inline void sl_books_settle(sl_books *books) {
    for (const sl_line *line; (line = sl_books_first(books)) && !line->unresolved;) {
        bool is_wide = line->is_wide;
        for (int i = 0; !is_wide && i < SL_LINE_WAYS && line->ways[i]; i++) {
            sl_books_settle_way(books, line->ways[i], line->counts[i]);
        }
        sl_lines_drop(&books->lines);
        if (!is_wide) continue;
        const uint32_t *counts = sl_lines_at(&books->lines, books->lines.head)->counts;
        for (int way = SL_STORED; way < SL_TALLY_FIELDS; way++) sl_books_settle_way(books, way, counts[way]);
        sl_lines_drop(&books->lines);
    }
}

/* Open the line of the next record, which has at most so many spans: its number in *number*. */
static inline int sl_books_begin(sl_books *books, const sl_line *begun, size_t spans, uint64_t *number) {
    sl_books_settle(books);
    sl_line_slot *slot = sl_lines_add(&books->lines);
    if (!slot) return SL_NO_MEMORY;
    slot->line = *begun;
    *number = books->lines.tail - 1;
    if (spans <= SL_LINE_SPANS) return SL_OK;
    slot->line.is_wide = true;
    sl_line_slot *counts = sl_lines_add(&books->lines);
    if (!counts) return SL_NO_MEMORY;
    memset(counts, 0, sizeof *counts);
    return SL_OK;
}

static inline void sl_books_receive(sl_books *books, uint64_t number, uint32_t count) {
    sl_lines_at(&books->lines, number)->line.unresolved += count;
    books->total.counts[SL_RECEIVED] += count;
}

/* Count something of a record that settles nothing. */
static inline void sl_books_note(sl_books *books, uint64_t number, sl_count way, uint32_t count) {
    sl_line *line = &sl_lines_at(&books->lines, number)->line;
    books->total.counts[way] += count;
    if (line->is_wide) {
        sl_lines_at(&books->lines, number + 1)->counts[way] += count;
        return;
    }
    int at = 0;
    while (line->ways[at] && line->ways[at] != way) at++;
    assert(at < SL_LINE_WAYS);
    line->ways[at] = (uint8_t)way;
    line->counts[at] += count;
}

/* It is settled what became of *count* spans. */
static inline void sl_books_resolve(sl_books *books, uint64_t number, sl_count way, uint32_t count) {
    sl_line *line = &sl_lines_at(&books->lines, number)->line;
    assert(number >= books->lines.head && line->unresolved >= count);
    line->unresolved -= count;
    sl_books_note(books, number, way, count);
}

#endif
