# How every file of the project is compiled.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
# The static libraries of the inner folders also become part of libringside.so.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Programs and shared libraries of all folders meet in one place, so that a test finds them.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
# No NDEBUG anywhere: the project's assertions are cheap and stay on in release.
set(CMAKE_C_FLAGS_DEBUG "-O0 -g3")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_RELEASE "-O2")

add_compile_definitions(_GNU_SOURCE)

# Sign conversion is left out on purpose, and switched off where clang counts it as conversion: the
# kernel's interfaces hand out lengths as int and ssize_t, and the casts that silence it hide the
# narrowing that -Wconversion is there to find.
add_compile_options(
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
    -Wconversion -Wno-sign-conversion -Wformat=2
    -fno-omit-frame-pointer -fno-strict-aliasing -fstack-protector-strong)
if(RINGSIDE_WERROR)
    add_compile_options(-Werror)
endif()

# __FILE__ appears in error texts: it names the file from the source root on every machine.
add_compile_options("-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=")

add_link_options(-Wl,-z,relro,-z,now)

if(RINGSIDE_SANITIZE STREQUAL "address-undefined")
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
    add_link_options(-fsanitize=address,undefined)
elseif(RINGSIDE_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread)
    add_link_options(-fsanitize=thread)
elseif(NOT RINGSIDE_SANITIZE STREQUAL "none")
    message(FATAL_ERROR "RINGSIDE_SANITIZE is '${RINGSIDE_SANITIZE}': "
        "use none, address-undefined or thread")
endif()

# Every file tells the fuzzer which branches it took; the fuzzers themselves link its main.
if(RINGSIDE_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
    add_link_options(-fsanitize=fuzzer-no-link)
endif()
