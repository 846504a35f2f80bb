// The configuration as fields of the message Run of configs/run.proto: find, set from text, convert to and from
// RunConfig.
//
// The only header besides the generated one that shows protobuf; included by launch/config/config.cc alone.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "launch/config/run_config.h"

namespace longspan {

// The field of a path ("model.layers" a value, "model.nsa" a group); nullptr when there is none.
const google::protobuf::FieldDescriptor* FindField(const google::protobuf::Descriptor* root, const std::string& path);

bool IsGroup(const google::protobuf::FieldDescriptor* field);
bool IsText(const google::protobuf::FieldDescriptor* field);  // or a list of texts

// The value (or group) path most like `path`: fewest edits in the whole path and in its last name.
std::string NearestPath(const google::protobuf::Descriptor* root, const std::string& path, bool group);

enum class ValueForm { kFile, kCommandLine };  // strings are quoted in a file and bare on the command line

// Sets the value at `path`, which must exist and not be a group; an element more when it is a list. Returns "" or what
// was expected.
std::string SetField(google::protobuf::Message* root, const std::string& path, const std::string& text, ValueForm form);
void ClearField(google::protobuf::Message* root, const std::string& path);

RunConfig ConfigOf(const google::protobuf::Message& run);
void WriteConfig(const RunConfig& config, google::protobuf::Message* run);  // every key, defaults too

// A value as text, as a file takes it.
std::string FieldText(const google::protobuf::Message& root, const std::string& path);

}  // namespace longspan
