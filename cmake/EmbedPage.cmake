# Writes OUTPUT, a C++ file that defines `const char* longspan::FUNCTION()`: PAGE with FILES in the place of their names,
# each "@name@". Of launch/report/page; at build time.
# cmake -DPAGE=x.html -DFILES=a.css,b.js -DFUNCTION=F -DOUTPUT=x.cc -P EmbedPage.cmake
cmake_minimum_required(VERSION 3.25)
file(READ "${PAGE}" page)
string(REPLACE "," ";" FILES "${FILES}")
foreach(file IN LISTS FILES)
  cmake_path(GET file FILENAME name)
  file(READ "${file}" text)
  if(text MATCHES "</script|</style")
    message(FATAL_ERROR "${file} would end the element that holds it")
  endif()
  string(REPLACE "@${name}@" "${text}" page "${page}")
endforeach()
if(page MATCHES "@([A-Za-z_.-]+\\.(js|css))@")
  message(FATAL_ERROR "${PAGE}: @${CMAKE_MATCH_1}@ is not among FILES")
endif()
file(WRITE "${OUTPUT}" "namespace longspan {\nconst char* ${FUNCTION}();\nconst char* ${FUNCTION}() { return R\"~page~(${page})~page~\"; }\n}  // namespace longspan\n")
