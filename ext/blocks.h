/*
 * Blocks that are allocated and freed all the time, kept at hand by size: what one trace gives back the next one takes,
 * without a search. Every block comes from malloc and may just as well go back by free(); how many bytes may lie idle
 * follows what is in use (sl_blocks_allow). Under AddressSanitizer none may, so that it sees every use of a freed block.
 */
#ifndef SPANLOOM_BLOCKS_H
#define SPANLOOM_BLOCKS_H

#include "memory.h"

#define SL_BLOCK_STEP 16 /* sizes, with what malloc adds, are rounded up to this */
#define SL_BLOCK_CLASSES 256
#define SL_MALLOC_BYTES 8
#define SL_BLOCK_BYTES_MAX (SL_BLOCK_STEP * SL_BLOCK_CLASSES - SL_MALLOC_BYTES)
#define SL_BLOCKS_IDLE_BYTES ((size_t)256 << 10) /* may always lie idle: one record's work frees and takes far less */
#define SL_BLOCKS_IDLE_SHARE 8                   /* and this part of the bytes in use */

typedef struct sl_block {
    struct sl_block *next;
} sl_block;

typedef struct {
    sl_block *free[SL_BLOCK_CLASSES]; /* owned: of sl_block_bytes(index) */
    size_t bytes, most; /* that lie here, and may */
} sl_blocks;

static inline size_t sl_block_class(size_t bytes) { return (bytes + SL_MALLOC_BYTES - 1) / SL_BLOCK_STEP; }

static inline size_t sl_block_bytes(size_t class) { return (class + 1) * SL_BLOCK_STEP - SL_MALLOC_BYTES; }

static inline void *sl_block_take(sl_blocks *blocks, size_t bytes) {
    size_t class = sl_block_class(bytes);
    if (class >= SL_BLOCK_CLASSES) return sl_alloc(bytes);
    sl_block *block = blocks->free[class];
    if (!block) return sl_alloc(sl_block_bytes(class));
    blocks->free[class] = block->next;
    blocks->bytes -= sl_block_bytes(class);
    sl_prefetch(block->next, 1); /* whoever takes that one looks into it */
    return block;
}

/* Give a block of *bytes* back, as they were asked for; without *blocks* it is freed. */
static inline void sl_block_give(sl_blocks *blocks, void *memory, size_t bytes) {
    size_t class = sl_block_class(bytes);
    if (!memory || !blocks || class >= SL_BLOCK_CLASSES ||
        blocks->bytes + sl_block_bytes(class) > blocks->most) {
        free(memory);
        return;
    }
    sl_block *block = memory;
    block->next = blocks->free[class];
    blocks->free[class] = block;
    blocks->bytes += sl_block_bytes(class);
}

/* Free blocks until at most *most* bytes lie here. */
static inline void sl_blocks_trim(sl_blocks *blocks, size_t most) {
    for (size_t class = SL_BLOCK_CLASSES; class-- && blocks->bytes > most;) {
        while (blocks->free[class] && blocks->bytes > most) {
            sl_block *block = blocks->free[class];
            blocks->free[class] = block->next;
            blocks->bytes -= sl_block_bytes(class);
            free(block);
        }
    }
}

/* So many bytes are in use: what may lie idle beside them. */
static inline void sl_blocks_allow(sl_blocks *blocks, size_t used) {
#ifdef __SANITIZE_ADDRESS__
    (void)used;
    blocks->most = 0;
#else
    blocks->most = SL_BLOCKS_IDLE_BYTES + used / SL_BLOCKS_IDLE_SHARE;
#endif
    if (blocks->bytes > blocks->most) sl_blocks_trim(blocks, blocks->most);
}

static inline void sl_blocks_free(sl_blocks *blocks) { sl_blocks_trim(blocks, 0); }

#endif
