// The structure of a textproto: which keys are given where. Values stay text; launch/config/fields reads them.
//
//   fields := { field [ "," | ";" ] }
//   field  := path [":"] "{" fields "}"  |  path (":" | "=") value  |  path (":" | "=") "[" [ value { "," value } ] "]"
//   path   := name { "." name }
//   value  := ["-"] (identifier | number)  |  string { string }        # to the end of the line is a comment
//
// Paths and "=" are not protobuf's: they are what the command line and --print-config write, so that their lines can
// stand in a file. Nor is an integer that begins with 0 taken for octal (launch/config/decimal.h).
//
// A parser of its own, and not TextFormat alone, so that one run can report every wrong key with its line:
// TextFormat stops at the first one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longspan {

struct TextprotoEntry {
  std::string path;       // "model.nsa.block"
  std::string value;      // as written, strings with their quotes; an element of a list is one entry
  int line;               // from 1
  bool is_group = false;  // the opening of a group; no value
};

struct Textproto {
  std::vector<TextprotoEntry> entries;  // in the order of the text
  std::string error;                    // what is wrong with the syntax, "" when nothing is; reading stopped there
  int error_line = 0;
};

Textproto ScanTextproto(std::string_view text);

}  // namespace longspan
