# A rank that fails while the others wait for it: the job must end in time, on every rank, and say which rank it was.
# cmake -DLAUNCHER="mpirun;-n;4" -DPROGRAM=... -DCASE=Throws -DSECONDS=10 -DEXPECT=<regex> -P abort_test.cmake
execute_process(COMMAND ${LAUNCHER} ${PROGRAM} --gtest_filter=AbortCase.${CASE}
  TIMEOUT ${SECONDS} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result MATCHES "^[1-9][0-9]*$")
  message(FATAL_ERROR "expected a non-zero exit status within ${SECONDS} s, found '${result}'\n${output}")
endif()
if(NOT output MATCHES "${EXPECT}")
  message(FATAL_ERROR "expected '${EXPECT}' in the output, found\n${output}")
endif()
message(STATUS "ended with status ${result}")
