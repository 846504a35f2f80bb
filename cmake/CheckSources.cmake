# Who may include whom, and the other rules that sources keep: no wait for a whole GPU, since streams and events order all
# work. Each broken rule is an error.
# cmake -DROOT=<source> -P CheckSources.cmake
cmake_minimum_required(VERSION 3.25)

function(room name)
  set_property(GLOBAL APPEND PROPERTY rooms ${name})
  set_property(GLOBAL PROPERTY may_${name} ${ARGN})
endfunction()
function(library name includes)
  set_property(GLOBAL APPEND PROPERTY libraries ${name})
  set_property(GLOBAL PROPERTY includes_${name} ${includes})
  set_property(GLOBAL PROPERTY places_${name} ${ARGN})
endfunction()
# ---- Rooms: a folder, and what its files may include besides each other: the files of a room, or one file --------------

# What stands on kernels/ sees its menu, not its rooms.
set(menu kernels kernels/attention kernels/dense/ops.h kernels/dense/rope_config.h kernels/rows/ops.h kernels/train/ops.h)

room(runtime)
room(runtime/files          runtime)

room(kernels/base           runtime)
room(kernels/matmul         runtime kernels/base)
room(kernels/rows           runtime kernels/base)
room(kernels/attention      runtime kernels/base kernels/matmul kernels/rows)
room(kernels/attention/cpu  runtime kernels/base kernels/matmul kernels/rows kernels/attention)
room(kernels/attention/gpu  runtime kernels/base kernels/matmul kernels/rows kernels/attention)
room(kernels/attention/decode runtime kernels/base kernels/attention)
room(kernels/attention/sm80 runtime kernels/base kernels/matmul kernels/rows kernels/attention kernels/attention/gpu)
room(kernels/attention/sm90 runtime kernels/base kernels/matmul kernels/rows kernels/attention kernels/attention/gpu)
room(kernels/dense          runtime kernels/base kernels/matmul kernels/rows)
room(kernels/train          runtime kernels/base kernels/matmul kernels/rows)
room(kernels                runtime ${menu} kernels/attention/gpu/attention.h kernels/dense/gpu.h kernels/rows/gpu.h
                            kernels/train/gpu.h)

room(parallel/comm          runtime parallel/config.h)
room(parallel               runtime kernels/attention/pages.h)
room(parallel/exchange      runtime kernels/attention/pages.h kernels/rows/ops.h kernels/dense/ops.h kernels/host_copy.h
                            parallel parallel/comm/comm.h)

room(model                  runtime ${menu} parallel parallel/comm/comm.h)
room(model/attention        runtime ${menu} parallel parallel/comm/comm.h model parallel/exchange)
room(model/network          runtime ${menu} parallel parallel/comm/comm.h model model/attention)
room(model/training         runtime ${menu} parallel parallel/comm/comm.h model model/network)
room(model/interchange      runtime runtime/files ${menu} model)
room(model/decode           runtime ${menu} parallel parallel/comm/comm.h parallel/comm/local_comm.h model model/attention
                            model/network)

room(nsa                    runtime runtime/files ${menu} parallel parallel/comm/comm.h parallel/comm/local_comm.h
                            model model/attention/branches.h model/decode model/interchange model/network model/training)

room(launch/config          runtime model/config.h parallel/config.h kernels/attention/nsa_config.h)
room(launch/job             runtime parallel/comm parallel/config.h launch/config/run_config.h)
room(launch/data            runtime runtime/files parallel model launch/config/run_config.h launch/config/blend.h)
room(launch/report          runtime runtime/files parallel/comm/comm.h parallel/comm/texts.h)
room(launch/checkpoint      runtime runtime/files ${menu} parallel/comm/comm.h parallel/comm/recorder.h parallel/comm/texts.h
                            model model/interchange model/training launch/config launch/data/tokenizer.h)
room(launch/train           runtime runtime/files ${menu} parallel parallel/comm parallel/exchange
                            model model/attention model/network model/training
                            launch/config launch/job launch/data launch/report launch/checkpoint)
room(launch/plan            runtime ${menu} parallel parallel/comm model model/network model/training
                            launch/config launch/train)
room(launch/commands        runtime runtime/files ${menu} parallel parallel/comm parallel/exchange
                            model model/attention model/decode model/interchange model/network model/training
                            launch/config launch/job launch/data launch/report launch/checkpoint launch/train
                            launch/plan launch/version.h)
room(launch                 runtime launch/commands)

# ---- Libraries: what their headers are called, and the beginnings of the paths that may include them ---------------------

library(MPI           "^mpi\\.h$"                          parallel/comm/mpi_ launch/job/)
library(NCCL          "^nccl\\.h$"                         parallel/comm/nccl_links.cc)
library(protobuf      "^google/protobuf/|\\.pb\\.h$"       launch/config/ launch/report/)
library(NVML          "^nvml\\.h$"                         runtime/)
library(NVTX          "nvToolsExt|^nvtx"                   runtime/)
library(CLI11         "^CLI/"                              launch/commands/ launch/main.cc)
library(JSON          "^nlohmann/"                         runtime/files/ model/interchange/hugging_face_config. launch/report/
                                                           launch/train/run_log. launch/data/dataset_record.
                                                           launch/data/json_lines. launch/checkpoint/manifest. launch/checkpoint/hugging_face_export. launch/plan/rates.
                                                           launch/job/rank_report.)
library(hwloc         "^hwloc"                             launch/job/)
library(cuBLAS        "^cublas"                            kernels/matmul/)
library(zlib          "^zlib\\.h$"                         launch/data/gzip_stream.cc)
library(Zstandard     "^zstd\\.h$"                         launch/data/zstd_stream.cc)
library(SentencePiece "^sentencepiece"                     launch/data/sentencepiece)

# ---- Words that the files of a folder do not contain ----------------------------------------------------------------------

set(everywhere_words     cudaDeviceSynchronize cuCtxSynchronize)
set(below_launch_words   RunConfig DataConfig TrainConfig)

# ---- The check ----------------------------------------------------------------------------------------------------------

get_property(rooms GLOBAL PROPERTY rooms)
get_property(libraries GLOBAL PROPERTY libraries)
set(bad "")

function(refuse file what why)
  set(bad "${bad}\n  ${file} -> ${what} (${why})" PARENT_SCOPE)
endfunction()

set(files "")
foreach(top runtime kernels parallel model nsa launch)
  foreach(extension h cc cu cuh)
    file(GLOB_RECURSE found RELATIVE ${ROOT} ${ROOT}/${top}/*.${extension})
    list(APPEND files ${found})
  endforeach()
endforeach()

foreach(file IN LISTS files)
  get_filename_component(folder ${file} DIRECTORY)
  if(NOT folder IN_LIST rooms)
    refuse(${file} ${folder} "not a room of the table")
  endif()
  get_property(may GLOBAL PROPERTY may_${folder})

  file(STRINGS ${ROOT}/${file} lines REGEX "^[ \t]*#[ \t]*include")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^[^\"<]*[\"<]([^\">]*)[\">].*" "\\1" include "${line}")
    foreach(name IN LISTS libraries)
      get_property(includes GLOBAL PROPERTY includes_${name})
      if(NOT include MATCHES "${includes}")
        continue()
      endif()
      set(allowed FALSE)
      get_property(places GLOBAL PROPERTY places_${name})
      foreach(place IN LISTS places)
        string(FIND ${file} ${place} at)
        if(at EQUAL 0)
          set(allowed TRUE)
        endif()
      endforeach()
      if(NOT allowed)
        refuse(${file} ${include} "${name} is for ${places}")
      endif()
    endforeach()
    if(include MATCHES "^(runtime|kernels|parallel|model|nsa|launch|tests)/")
      get_filename_component(from ${include} DIRECTORY)
      if(NOT from STREQUAL folder AND NOT from IN_LIST may AND NOT include IN_LIST may)
        refuse(${file} ${include} "${folder} may not include it")
      elseif(include MATCHES "\\.cuh$" AND NOT file MATCHES "^kernels/")
        refuse(${file} ${include} "device code stays in kernels/")
      endif()
    endif()
  endforeach()

  set(words ${everywhere_words})
  if(NOT file MATCHES "^launch/")
    list(APPEND words ${below_launch_words})
  endif()
  foreach(word IN LISTS words)
    file(STRINGS ${ROOT}/${file} lines REGEX "(^|[^A-Za-z0-9_])${word}([^A-Za-z0-9_]|$)" LIMIT_COUNT 1)
    if(lines)
      refuse(${file} ${word} "a word that is not for ${folder}")
    endif()
  endforeach()
endforeach()

if(bad)
  message(FATAL_ERROR "sources against the rules of cmake/CheckSources.cmake:${bad}")
endif()
