# Looks for DPDK. Sets RINGSIDE_HAVE_DPDK and offers the target ringside_dpdk_headers (how files that include DPDK are
# compiled) and RINGSIDE_DPDK_LIBRARIES. The shared libraries, so that an application that runs DPDK itself and this
# library meet in one EAL; and only those named here, because what is linked is what a machine must have installed:
# DPDK's own list would ask for all of its libraries.

set(RINGSIDE_HAVE_DPDK OFF)
if(RINGSIDE_DPDK STREQUAL "AUTO" OR RINGSIDE_DPDK STREQUAL "ON")
    pkg_check_modules(DPDK QUIET libdpdk>=22.11)
    if(DPDK_FOUND)
        set(RINGSIDE_HAVE_DPDK ON)
    elseif(RINGSIDE_DPDK STREQUAL "ON")
        message(FATAL_ERROR "RINGSIDE_DPDK is ON, but DPDK 22.11 or later is missing (Debian: libdpdk-dev)")
    endif()
elseif(NOT RINGSIDE_DPDK STREQUAL "OFF")
    message(FATAL_ERROR "RINGSIDE_DPDK is '${RINGSIDE_DPDK}': use AUTO, ON or OFF")
endif()

if(RINGSIDE_HAVE_DPDK)
    add_library(ringside_dpdk_headers INTERFACE)
    target_include_directories(ringside_dpdk_headers SYSTEM INTERFACE ${DPDK_INCLUDE_DIRS})
    target_compile_options(ringside_dpdk_headers INTERFACE ${DPDK_CFLAGS_OTHER})
    set(RINGSIDE_DPDK_LIBRARIES "")
    foreach(part eal ethdev mbuf mempool ring bus_vdev)
        find_library(RINGSIDE_DPDK_rte_${part} rte_${part} HINTS ${DPDK_LIBRARY_DIRS} REQUIRED)
        mark_as_advanced(RINGSIDE_DPDK_rte_${part})
        list(APPEND RINGSIDE_DPDK_LIBRARIES "${RINGSIDE_DPDK_rte_${part}}")
    endforeach()
endif()
message(STATUS "dpdk plugin: ${RINGSIDE_HAVE_DPDK}")
