# Man pages of the programs, made of their --help (needs help2man), and the API reference, made of ringside.h
# (needs doxygen; target `reference`, which also writes the page ringside.h(3)). Both are left out, with a line that
# says so, where the tool is missing.

find_program(HELP2MAN help2man)
find_program(DOXYGEN doxygen)
set(man_folder "${PROJECT_BINARY_DIR}/man")

# ringside_man_page(page section name command...): `name` is the line under NAME.
function(ringside_man_page page section name program)
    list(JOIN ARGN " " command)
    set(output "${man_folder}/${page}.${section}")
    file(CONFIGURE OUTPUT "${man_folder}/${page}.h2m" CONTENT
"[name]
@page@ \\- @name@

[see also]
.BR ringside (1),
.BR ringsided (8),
.BR ringside.h (3)
" @ONLY)
    add_custom_command(
        OUTPUT "${output}"
        COMMAND "${HELP2MAN}" --no-info --section=${section}
                "--version-string=ringside ${PROJECT_VERSION}" --source=Ringside
                "--include=${man_folder}/${page}.h2m"
                "--output=${output}" "$<TARGET_FILE:${program}> ${command}"
        DEPENDS ${program} "${man_folder}/${page}.h2m"
        COMMENT "Writing ${page}(${section})"
        VERBATIM)
    set_property(GLOBAL APPEND PROPERTY RINGSIDE_MAN_PAGES "${output}")
    install(FILES "${output}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man${section}")
endfunction()

if(HELP2MAN)
    ringside_man_page(ringsided 8 "the Ringside broker" ringsided)
    ringside_man_page(ringside 1 "publish, subscribe and measure" ringside_cli)
    foreach(command IN ITEMS "pub:publish messages" "sub:print messages" "ping:measure the round trip"
            "bench:measure latency, throughput and fan-out" "replay:publish a recording"
            "feed:write a generated market-data feed" "verify:compare what arrives with a recording"
            "request:ask a service" "reply:answer requests"
            "top:show live what every session does" "info:tell what a broker serves")
        string(REGEX REPLACE ":.*" "" word "${command}")
        string(REGEX REPLACE "^[a-z]*:" "" name "${command}")
        ringside_man_page(ringside-${word} 1 "${name}" ringside_cli ${word})
    endforeach()
    get_property(pages GLOBAL PROPERTY RINGSIDE_MAN_PAGES)
    add_custom_target(man ALL DEPENDS ${pages})
else()
    message(STATUS "man pages: left out, help2man is missing")
endif()

if(DOXYGEN)
    configure_file(deploy/reference/Doxyfile.in "${PROJECT_BINARY_DIR}/Doxyfile" @ONLY)
    add_custom_command(
        OUTPUT "${PROJECT_BINARY_DIR}/reference/man/man3/ringside.h.3"
        COMMAND "${DOXYGEN}" "${PROJECT_BINARY_DIR}/Doxyfile"
        DEPENDS clients/c/ringside.h "${PROJECT_BINARY_DIR}/Doxyfile"
        COMMENT "Writing the API reference"
        VERBATIM)
    add_custom_target(reference ALL DEPENDS "${PROJECT_BINARY_DIR}/reference/man/man3/ringside.h.3")
    install(FILES "${PROJECT_BINARY_DIR}/reference/man/man3/ringside.h.3"
        DESTINATION "${CMAKE_INSTALL_MANDIR}/man3")
else()
    message(STATUS "API reference: left out, doxygen is missing")
endif()
