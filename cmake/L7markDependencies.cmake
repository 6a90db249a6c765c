# SPDX-License-Identifier: GPL-2.0-only
# Every library that l7mark links, as an imported target.
find_package(PkgConfig REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(libbpf REQUIRED IMPORTED_TARGET libbpf>=1.1)
pkg_check_modules(libxdp REQUIRED IMPORTED_TARGET libxdp>=1.3)
pkg_check_modules(libmnl REQUIRED IMPORTED_TARGET libmnl)
pkg_check_modules(libnftnl REQUIRED IMPORTED_TARGET libnftnl)
pkg_check_modules(libpcap REQUIRED IMPORTED_TARGET libpcap)
pkg_check_modules(libcapng REQUIRED IMPORTED_TARGET libcap-ng)
pkg_check_modules(libseccomp REQUIRED IMPORTED_TARGET libseccomp)

# NDPI_ROOT chooses another nDPI by its prefix; its pkg-config file says the rest.
if(NDPI_ROOT)
  set(ENV{PKG_CONFIG_PATH}
      "${NDPI_ROOT}/lib/pkgconfig:${NDPI_ROOT}/libdata/pkgconfig:${NDPI_ROOT}/lib/x86_64-linux-gnu/pkgconfig:$ENV{PKG_CONFIG_PATH}")
endif()
pkg_check_modules(ndpi REQUIRED IMPORTED_TARGET libndpi>=4.2)
message(STATUS "nDPI ${ndpi_VERSION} (${ndpi_PREFIX})")

find_program(BPF_CLANG NAMES clang clang-14 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)
