# Every package Gantry uses, found once. Debian names are in deploy/packages/build.txt,
# the reason for each in docs/decisions/.

find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# package(NAME [ARCHIVES a...] [LIBRARIES l...]): an interface target gantry_pkg::NAME.
function(gantry_package name)
  cmake_parse_arguments(ARG "" "" "ARCHIVES;LIBRARIES;DEPENDS" ${ARGN})
  add_library(gantry_pkg_${name} INTERFACE)
  add_library(gantry_pkg::${name} ALIAS gantry_pkg_${name})
  foreach(archive IN LISTS ARG_ARCHIVES)
    find_library(GANTRY_ARCHIVE_${archive} lib${archive}.a REQUIRED)
    target_link_libraries(gantry_pkg_${name} INTERFACE ${GANTRY_ARCHIVE_${archive}})
  endforeach()
  target_link_libraries(gantry_pkg_${name} INTERFACE ${ARG_LIBRARIES} ${ARG_DEPENDS})
endfunction()

# Abseil, protobuf and gRPC are linked statically. Local hops are unix sockets, so gRPC is the variant
# without TLS; the loader's work for its 50 shared objects would cost every start more than 10 ms.
# lld resolves archives in any order, so no link groups are needed.
file(GLOB GANTRY_ABSL_ARCHIVES /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/libabsl_*.a)
gantry_package(absl LIBRARIES ${GANTRY_ABSL_ARCHIVES} Threads::Threads)
gantry_package(protobuf ARCHIVES protobuf DEPENDS Threads::Threads)
gantry_package(protobuf_lite ARCHIVES protobuf-lite DEPENDS Threads::Threads)
gantry_package(grpc
  ARCHIVES grpc++_unsecure grpc_unsecure address_sorting re2 upb cares z gpr
  LIBRARIES ${CMAKE_DL_LIBS} rt
  DEPENDS gantry_pkg::absl gantry_pkg::protobuf Threads::Threads)
gantry_package(lmdb ARCHIVES lmdb)
gantry_package(seccomp ARCHIVES seccomp)
gantry_package(re2 ARCHIVES re2)
gantry_package(crypto LIBRARIES crypto)
gantry_package(ssl LIBRARIES ssl crypto)
gantry_package(curl LIBRARIES curl)
gantry_package(isal LIBRARIES isal)
gantry_package(zstd LIBRARIES zstd)
gantry_package(archive LIBRARIES archive)
gantry_package(prometheus LIBRARIES prometheus-cpp-core)
gantry_package(prometheus_pull LIBRARIES prometheus-cpp-pull prometheus-cpp-core)
gantry_package(civetweb LIBRARIES civetweb-cpp civetweb)

# What unpacks layers. Static where Debian has archives, so that the unpack worker, one process a
# layer, starts without the shared objects of libarchive's other formats.
gantry_package(unpack ARCHIVES archive zstd crypto LIBRARIES isal)
