/*
 * Which service_pattern policies a service name matches, as a set of bits. Globs are Python's (fnmatch): each distinct
 * name is asked for once and the answer kept, up to SL_SERVICES_MAX names; then all are forgotten and asked for anew.
 */
#ifndef SPANLOOM_SERVICES_H
#define SPANLOOM_SERVICES_H

#include "scan.h"
#include "siphash.h"

#define SL_SERVICES_MAX 4096
#define SL_SERVICE_BYTES_MAX 256 /* a longer name is asked for every time */

/* Answers which policies match a name; SL_OK, or SL_NO_MEMORY where it cannot. May take the GIL. */
typedef int (*sl_matcher)(void *context, const uint8_t *name, size_t size, uint64_t *matches);

typedef struct {
    uint64_t hash, matches;
    size_t size;
    uint8_t name[];
} sl_service;

typedef struct {
    sl_service **slots; /* owned, and what they point to: 2 * SL_SERVICES_MAX, or NULL before the first name */
    size_t count;
    sl_matcher matcher;
    void *context; /* borrowed */
} sl_services;

static inline void sl_services_forget(sl_services *services) {
    for (size_t i = 0; services->slots && i < 2 * SL_SERVICES_MAX; i++) {
        free(services->slots[i]);
        services->slots[i] = NULL;
    }
    services->count = 0;
}

static inline void sl_services_free(sl_services *services) {
    sl_services_forget(services);
    free(services->slots);
    services->slots = NULL;
}

static inline sl_service **sl_service_slot(const sl_services *services, uint64_t hash, sl_slice name) {
    for (uint64_t at = hash;; at++) {
        sl_service **slot = &services->slots[at & (2 * SL_SERVICES_MAX - 1)];
        if (!*slot) return slot;
        if ((*slot)->hash != hash || (*slot)->size != name.size) continue;
        if (!name.size || !memcmp((*slot)->name, name.at, name.size)) return slot;
    }
}

/* The policies that match *name*. */
static inline int sl_service_matches(sl_services *services, const sl_key *key, sl_slice name, uint64_t *matches) {
    if (name.size > SL_SERVICE_BYTES_MAX) return services->matcher(services->context, name.at, name.size, matches);
    if (!services->slots) services->slots = sl_alloc_zeroed(2 * SL_SERVICES_MAX, sizeof *services->slots);
    if (!services->slots) return SL_NO_MEMORY;
    if (services->count == SL_SERVICES_MAX) sl_services_forget(services);
    uint64_t hash = sl_siphash_bytes(key, name.at, name.size);
    sl_service **slot = sl_service_slot(services, hash, name);
    if (!*slot) {
        sl_service *service = sl_alloc(sizeof *service + name.size);
        if (!service) return SL_NO_MEMORY;
        *service = (sl_service){.hash = hash, .size = name.size};
        if (name.size) memcpy(service->name, name.at, name.size);
        if (services->matcher(services->context, name.at, name.size, &service->matches)) {
            free(service);
            return SL_NO_MEMORY;
        }
        *slot = service;
        services->count++;
    }
    *matches = (*slot)->matches;
    return SL_OK;
}

/* The policies that match any service in TracesData bytes that sl_write_chain wrote. */
static inline int sl_services_in(sl_services *services, const sl_key *key, sl_slice traces_data, uint64_t *matches) {
    sl_reader reader = {traces_data.at, traces_data.at, traces_data.at + traces_data.size};
    sl_field field;
    sl_fault unused;
    while (reader.at < reader.end) {
        sl_slice service;
        uint64_t more;
        (void)sl_read_field(&reader, &field, &unused);
        (void)sl_scan_resource(sl_inside(&reader, &field), &service, &unused);
        if (sl_service_matches(services, key, service, &more)) return SL_NO_MEMORY;
        *matches |= more;
    }
    return SL_OK;
}

#endif
