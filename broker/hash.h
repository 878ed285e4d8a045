/*
 * uthash that reports a lack of memory instead of ending the process. After HASH_ADD an element
 * that rsi_hash_has() denies was not added; the table is as it was.
 */
#ifndef RSI_BROKER_HASH_H
#define RSI_BROKER_HASH_H

#ifdef UTHASH_H
#error "include broker/hash.h instead of uthash.h"
#endif
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* Right after HASH_ADD of it. */
#define rsi_hash_has(element) ((element)->hh.tbl != NULL)

#endif
