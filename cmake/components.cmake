# The few functions every room's CMakeLists.txt is written with.

# add_component(NAME SOURCES ... [DEPENDS ...] [PRIVATE_DEPENDS ...] [SMALL])
#
# A static library gantry_NAME, alias gantry::NAME. DEPENDS is what its headers expose.
# SMALL marks code that the shim and the runtime link: no exceptions, no RTTI, size before speed.
function(add_component name)
  cmake_parse_arguments(ARG "SMALL" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  if(ARG_SOURCES)
    add_library(gantry_${name} STATIC ${ARG_SOURCES})
    target_include_directories(gantry_${name} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(gantry_${name} PUBLIC ${ARG_DEPENDS}
                          PRIVATE ${ARG_PRIVATE_DEPENDS} gantry_warnings)
    if(ARG_SMALL)
      target_compile_options(gantry_${name} PRIVATE -fno-exceptions $<$<CONFIG:Release>:-Os>)
      # UBSan's checks of virtual calls need RTTI.
      if(NOT GANTRY_SANITIZE AND NOT GANTRY_FUZZ)
        target_compile_options(gantry_${name} PRIVATE -fno-rtti)
      endif()
    endif()
  else()
    add_library(gantry_${name} INTERFACE)
    target_include_directories(gantry_${name} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(gantry_${name} INTERFACE ${ARG_DEPENDS})
  endif()
  add_library(gantry::${name} ALIAS gantry_${name})
endfunction()

# add_program(NAME SOURCES ... [DEPENDS ...] [STATIC])
#
# An executable in build/<preset>/bin. STATIC links glibc in as well (the shim, the runtime, the
# client): a static program starts in a fraction of a dynamic one's time. The target `programs` is all of them.
function(add_program name)
  cmake_parse_arguments(ARG "STATIC" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} gantry_warnings)
  target_link_options(${name} PRIVATE -Wl,--gc-sections $<$<CONFIG:Release>:-Wl,-s>)
  if(ARG_STATIC AND NOT GANTRY_SANITIZE AND NOT GANTRY_FUZZ)
    target_link_options(${name} PRIVATE -static)
  endif()
  install(TARGETS ${name})
  if(NOT TARGET programs)
    add_custom_target(programs COMMENT "What people run, without tests and benchmarks")
  endif()
  add_dependencies(programs ${name})
endfunction()

# add_daemon(NAME COMPONENT c ENTRY gantry::x::Main): makes `gantryd` answer to the name
# gantry-NAME by calling ENTRY(argc, argv), and links bin/gantry-NAME to it.
function(add_daemon name)
  cmake_parse_arguments(ARG "" "COMPONENT;ENTRY" "" ${ARGN})
  set_property(GLOBAL APPEND PROPERTY GANTRY_DAEMONS "${name}|${ARG_COMPONENT}|${ARG_ENTRY}")
endfunction()

# add_unit_test(NAME SOURCES ... [DEPENDS ...] [LABELS ...] [TIMEOUT s])
#
# One GoogleTest program = one ctest entry. Labels: unit root integration conformance fault
# stress fuzz bench lint vm; default unit.
function(add_unit_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LABELS" ${ARGN})
  if(GANTRY_FUZZ)
    add_custom_target(${name})  # Rooms hang dependencies on it.
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gmock GTest::gtest_main gantry_warnings)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "GANTRY_BIN=${CMAKE_BINARY_DIR}/bin")
endfunction()

# add_fuzz_target(NAME SOURCES file.cc [DEPENDS ...] CORPUS dir)
#
# With the fuzz preset: a libFuzzer program. With every other preset: the same file linked to a
# driver that runs each file of the corpus once, as a test with the label fuzz.
function(add_fuzz_target name)
  cmake_parse_arguments(ARG "" "CORPUS" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} gantry_warnings)
  if(GANTRY_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/lib/testing/fuzz_corpus_main.cc)
    add_test(NAME ${name} COMMAND ${name} ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_CORPUS})
    set_tests_properties(${name} PROPERTIES LABELS "fuzz" TIMEOUT 120)
  endif()
endfunction()

# add_benchmark(NAME SOURCES ... [DEPENDS ...]): a Google Benchmark program, not a test.
function(add_benchmark name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  if(GANTRY_FUZZ)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} benchmark::benchmark gantry_warnings)
endfunction()
