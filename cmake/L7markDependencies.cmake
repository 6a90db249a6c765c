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
pkg_check_modules(nettle REQUIRED IMPORTED_TARGET nettle)

# NDPI_ROOT chooses another nDPI by the prefix that it was installed to. Its pkg-config file is only
# asked for what a static library needs besides: it may tell of another prefix (DESTDIR), and where
# there is none, pkg-config would quietly find the system's.
if(NDPI_ROOT)
  # The system may have files of the same names: look nowhere else.
  find_path(ndpi_include ndpi_api.h PATHS ${NDPI_ROOT}/include/ndpi NO_DEFAULT_PATH NO_CACHE REQUIRED)
  find_library(ndpi_library ndpi PATHS ${NDPI_ROOT}
    PATH_SUFFIXES lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE} NO_DEFAULT_PATH NO_CACHE REQUIRED)
  add_library(l7mark_ndpi INTERFACE)
  target_include_directories(l7mark_ndpi SYSTEM INTERFACE ${ndpi_include})
  target_link_libraries(l7mark_ndpi INTERFACE ${ndpi_library})
  if(ndpi_library MATCHES "[.]a$")
    foreach(directory lib lib64 lib/${CMAKE_LIBRARY_ARCHITECTURE} libdata)
      if(EXISTS ${NDPI_ROOT}/${directory}/pkgconfig/libndpi.pc)
        file(STRINGS ${NDPI_ROOT}/${directory}/pkgconfig/libndpi.pc ndpi_libs REGEX "^Libs")
        string(REGEX MATCHALL "-l[^ ;]+" ndpi_libs "${ndpi_libs}")
        list(REMOVE_ITEM ndpi_libs -lndpi)
        target_link_libraries(l7mark_ndpi INTERFACE ${ndpi_libs})
      endif()
    endforeach()
  endif()
  # What is installed must find it as what is built does.
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
  message(STATUS "nDPI: ${ndpi_library}")
else()
  pkg_check_modules(ndpi REQUIRED IMPORTED_TARGET libndpi>=4.2)
  add_library(l7mark_ndpi ALIAS PkgConfig::ndpi)
  message(STATUS "nDPI ${ndpi_VERSION} (${ndpi_PREFIX})")
endif()

find_program(BPF_CLANG NAMES clang clang-14 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)
