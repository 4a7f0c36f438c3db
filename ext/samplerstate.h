/* What a sampler has gathered, as a CHECKPOINT carries it: drawn in sketch.h and rates.h, one state after the other. */
#ifndef SPANLOOM_SAMPLERSTATE_H
#define SPANLOOM_SAMPLERSTATE_H

#include "sampler.h"
#include "sketchstate.h"

static inline size_t sl_state_size(const sl_state *state) {
    switch (state->kind) {
    case SL_STATE_PERCENTILES: return sl_percentiles_state_size(&state->of.percentiles);
    case SL_STATE_SHARES: return sl_shares_state_size(&state->of.shares);
    case SL_STATE_BUCKET: break;
    }
    return 16;
}

/* Write the state, sl_state_size of it. */
static inline int sl_state_store(const sl_state *state, uint8_t *to) {
    switch (state->kind) {
    case SL_STATE_PERCENTILES: return sl_percentiles_store(&state->of.percentiles, to);
    case SL_STATE_SHARES: return sl_shares_store(&state->of.shares, to);
    case SL_STATE_BUCKET: break;
    }
    to = sl_store64(to, (uint64_t)state->of.bucket.level);
    (void)sl_store64(to, (uint64_t)state->of.bucket.filled_us);
    return SL_OK;
}

#endif
