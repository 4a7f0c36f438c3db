/*
 * Blocks that are allocated and freed all the time, kept at hand by size: what one trace gives back the next one takes,
 * without a search. Every block comes from malloc and may just as well go back by free(); at most SL_BLOCKS_BYTES_MAX
 * are kept. Under AddressSanitizer none is, so that it sees every use of a freed block.
 */
#ifndef SPANLOOM_BLOCKS_H
#define SPANLOOM_BLOCKS_H

#include "memory.h"

#define SL_BLOCK_STEP 64 /* sizes are rounded up to this */
#define SL_BLOCK_CLASSES 64
#ifdef __SANITIZE_ADDRESS__
#define SL_BLOCKS_BYTES_MAX 0
#else
#define SL_BLOCKS_BYTES_MAX ((size_t)256 << 10) /* an assembler; one record's work frees and takes far less */
#endif

typedef struct sl_block {
    struct sl_block *next;
} sl_block;

typedef struct {
    sl_block *free[SL_BLOCK_CLASSES]; /* owned: of (index + 1) * SL_BLOCK_STEP bytes */
    size_t bytes;
} sl_blocks;

static inline void *sl_block_take(sl_blocks *blocks, size_t bytes) {
    size_t class = (bytes - 1) / SL_BLOCK_STEP;
    if (class >= SL_BLOCK_CLASSES) return sl_alloc(bytes);
    sl_block *block = blocks->free[class];
    if (!block) return sl_alloc((class + 1) * SL_BLOCK_STEP);
    blocks->free[class] = block->next;
    blocks->bytes -= (class + 1) * SL_BLOCK_STEP;
    return block;
}

/* Give a block of *bytes* back, as they were asked for. */
static inline void sl_block_give(sl_blocks *blocks, void *memory, size_t bytes) {
    size_t class = (bytes - 1) / SL_BLOCK_STEP;
    if (!memory || class >= SL_BLOCK_CLASSES || blocks->bytes + (class + 1) * SL_BLOCK_STEP > SL_BLOCKS_BYTES_MAX) {
        free(memory);
        return;
    }
    sl_block *block = memory;
    block->next = blocks->free[class];
    blocks->free[class] = block;
    blocks->bytes += (class + 1) * SL_BLOCK_STEP;
}

static inline void sl_blocks_free(sl_blocks *blocks) {
    for (size_t class = 0; class < SL_BLOCK_CLASSES; class++) {
        for (sl_block *block = blocks->free[class], *next; block; block = next) {
            next = block->next;
            free(block);
        }
        blocks->free[class] = NULL;
    }
    blocks->bytes = 0;
}

#endif
