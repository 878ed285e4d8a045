/* CRC32C (Castagnoli), as iSCSI and SCTP have it. */
#ifndef RSI_TRANSPORT_DPDK_CRC32C_H
#define RSI_TRANSPORT_DPDK_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Any thread, no system call. Over `bytes` from `data` on. */
uint32_t rsi_crc32c(const void *data, size_t bytes);
/* The same without the instructions of the CPU, to hold the one against the other. */
uint32_t rsi_crc32c_by_table(const void *data, size_t bytes);

#endif
