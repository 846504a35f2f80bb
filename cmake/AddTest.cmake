# longspan_test(<name> SOURCES <files> [LIBS <targets>] [RANKS <n> ...] [LABELS <label> ...] [TIMEOUT <s>] [PROCESSORS <n>]
#               [ENVIRONMENT <VAR=value> ...])
#
# One executable; one ctest entry a rank count, named <name>.np<n>. More than one rank runs under mpirun, oversubscribed
# where ranks outnumber cores. Exit code 77 means skipped. PROCESSORS: how many the test keeps busy, if not one a rank; where
# there are fewer it runs alone.
set(LONGSPAN_TEST_ENVIRONMENT
  OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
  PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
  # Where the build has the address sanitizer (preset asan): Open MPI's leaks are its own. They are known by the libraries on
  # the way to an allocation, and all of the way is only seen with the slow unwinder. A bus error stays the program's.
  ASAN_OPTIONS=fast_unwind_on_malloc=0:handle_sigbus=0:allocator_may_return_null=1
  LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/sanitizers/openmpi.supp:print_suppressions=0)

# All programs that tests of label gpu need: cmake --build . --target gpu_tests
add_custom_target(gpu_tests)

# Under a sanitizer all takes longer.
set(LONGSPAN_TEST_PATIENCE 1)
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
  set(LONGSPAN_TEST_PATIENCE 5)
endif()

# Registers a ctest entry of an existing program: longspan_add_entry(<test> <target> <ranks> <labels> <timeout> <environment>)
function(longspan_add_entry test target ranks labels timeout environment)
  set(launcher "")
  if(ranks GREATER 1)
    set(launcher ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks})
  endif()
  add_test(NAME ${test} COMMAND ${launcher} $<TARGET_FILE:${target}>)
  math(EXPR timeout "${timeout} * ${LONGSPAN_TEST_PATIENCE}")
  set_tests_properties(${test} PROPERTIES LABELS "${labels}" PROCESSORS ${ranks} TIMEOUT ${timeout}
    SKIP_RETURN_CODE 77 ENVIRONMENT "${LONGSPAN_TEST_ENVIRONMENT};${environment}")
endfunction()

function(longspan_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT;PROCESSORS" "SOURCES;LIBS;RANKS;LABELS;ENVIRONMENT")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "longspan_test(${name}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  add_executable(${name} ${arg_SOURCES})
  # What is tested has its own flags; the tests themselves, half of all sources, are compiled once to run for seconds.
  target_compile_options(${name} PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  if(arg_RANKS)
    target_link_libraries(${name} PRIVATE ${arg_LIBS} longspan_test_mpi_main)
  else()
    set(arg_RANKS 1)
    target_link_libraries(${name} PRIVATE ${arg_LIBS} GTest::gtest_main)
  endif()
  if("gpu" IN_LIST arg_LABELS)
    add_dependencies(gpu_tests ${name})
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  foreach(ranks IN LISTS arg_RANKS)
    longspan_add_entry(${name}.np${ranks} ${name} ${ranks} "np${ranks};${arg_LABELS}" ${arg_TIMEOUT} "${arg_ENVIRONMENT}")
    if(arg_PROCESSORS)
      set_tests_properties(${name}.np${ranks} PROPERTIES PROCESSORS ${arg_PROCESSORS})
    endif()
  endforeach()
endfunction()
