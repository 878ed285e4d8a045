/*
 * The little of a kernel that broker and clients see inside a world: eventfd, epoll and timerfd.
 */
#ifndef RSI_SIMULATION_KERNEL_H
#define RSI_SIMULATION_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* Turns the wrapped calls from the real kernel to this one, and back. */
void kernel_begin(void);
void kernel_end(void);

bool kernel_is_readable(int fd);
/* Descriptors that a process has open. */
uint32_t kernel_open_count(uint32_t process);
/* A process was killed: closes all that it had. */
void kernel_forget_process(uint32_t process);

#endif
