#include "launch/config/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <limits>

#include "launch/config/decimal.h"
#include "launch/config/keys.h"
#include "launch/config/nearest_name.h"

namespace longspan {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

std::string LastName(const std::string& path) { return path.substr(path.rfind('.') + 1); }

void CollectPaths(const Descriptor* message, const std::string& prefix, bool group, std::vector<std::string>* paths) {
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    if (IsGroup(field) == group) paths->push_back(prefix + field->name());
    if (IsGroup(field)) CollectPaths(field->message_type(), prefix + field->name() + ".", group, paths);
  }
}

// The message that directly holds the last name of `path`.
const Message& Holder(const Message& root, const std::string& path) {
  const size_t dot = path.find('.');
  if (dot == std::string::npos) return root;
  const FieldDescriptor* field = root.GetDescriptor()->FindFieldByName(path.substr(0, dot));
  return Holder(root.GetReflection()->GetMessage(root, field), path.substr(dot + 1));
}

Message* MutableHolder(Message* root, const std::string& path) {
  const size_t dot = path.find('.');
  if (dot == std::string::npos) return root;
  const FieldDescriptor* field = root->GetDescriptor()->FindFieldByName(path.substr(0, dot));
  return MutableHolder(root->GetReflection()->MutableMessage(root, field), path.substr(dot + 1));
}

std::string Expected(const FieldDescriptor* field, const std::string& text) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return "expected a whole number";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "expected a whole number, 0 or more";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "expected a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "expected true or false";
    case FieldDescriptor::CPPTYPE_ENUM: {
      std::vector<std::string> names;
      for (int i = 0; i < field->enum_type()->value_count(); ++i) names.push_back(field->enum_type()->value(i)->name());
      return fmt::format("expected one of {}; did you mean {}?", fmt::join(names, ", "), NearestName(text, names));
    }
    default:
      return "expected a string in quotes";
  }
}

class Silent : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
};

struct Reader {
  const Message& root;

  template <typename T>
  void operator()(const char* path, T& value) const {
    const Message& message = Holder(root, path);
    const auto& get = *message.GetReflection();
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(LastName(path));
    if constexpr (std::is_same_v<T, int64_t>) {
      value = get.GetInt64(message, field);
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      value = get.GetUInt64(message, field);
    } else if constexpr (std::is_same_v<T, double>) {
      value = get.GetDouble(message, field);
    } else if constexpr (std::is_same_v<T, bool>) {
      value = get.GetBool(message, field);
    } else if constexpr (std::is_same_v<T, std::string>) {
      value = get.GetString(message, field);
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(get.GetEnumValue(message, field));
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      value.clear();
      for (int i = 0; i < get.FieldSize(message, field); ++i) {
        value.push_back(get.GetRepeatedString(message, field, i));
      }
    } else if (get.FieldSize(message, field) > 0) {  // a list: schemas have no default for it, RunConfig has
      value.clear();
      for (int i = 0; i < get.FieldSize(message, field); ++i) {
        value.push_back(static_cast<typename T::value_type>(get.GetRepeatedEnumValue(message, field, i)));
      }
    }
  }
};

struct Writer {
  Message* root;

  template <typename T>
  void operator()(const char* path, const T& value) const {
    Message* message = MutableHolder(root, path);
    const auto& set = *message->GetReflection();
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(LastName(path));
    if constexpr (std::is_same_v<T, int64_t>) {
      set.SetInt64(message, field, value);
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      set.SetUInt64(message, field, value);
    } else if constexpr (std::is_same_v<T, double>) {
      set.SetDouble(message, field, value);
    } else if constexpr (std::is_same_v<T, bool>) {
      set.SetBool(message, field, value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      set.SetString(message, field, value);
    } else if constexpr (std::is_enum_v<T>) {
      set.SetEnumValue(message, field, static_cast<int>(value));
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      set.ClearField(message, field);
      for (const std::string& element : value) set.AddString(message, field, element);
    } else {
      set.ClearField(message, field);
      for (const auto& element : value) set.AddEnumValue(message, field, static_cast<int>(element));
    }
  }
};

}  // namespace

bool IsGroup(const FieldDescriptor* field) { return field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE; }

bool IsText(const FieldDescriptor* field) { return field->cpp_type() == FieldDescriptor::CPPTYPE_STRING; }

const FieldDescriptor* FindField(const Descriptor* root, const std::string& path) {
  const size_t dot = path.find('.');
  const FieldDescriptor* field = root->FindFieldByName(path.substr(0, dot));
  if (field == nullptr || dot == std::string::npos) return field;
  return IsGroup(field) ? FindField(field->message_type(), path.substr(dot + 1)) : nullptr;
}

std::string NearestPath(const Descriptor* root, const std::string& path, bool group) {
  std::vector<std::string> paths;
  CollectPaths(root, "", group, &paths);
  std::string nearest;
  int least = std::numeric_limits<int>::max();
  for (const std::string& candidate : paths) {
    const int distance = EditDistance(candidate, path) + EditDistance(LastName(candidate), LastName(path));
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string SetField(Message* root, const std::string& path, const std::string& text, ValueForm form) {
  Message* message = MutableHolder(root, path);
  const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(LastName(path));
  if (form == ValueForm::kCommandLine && field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    if (field->is_repeated()) {
      message->GetReflection()->AddString(message, field, text);
    } else {
      message->GetReflection()->SetString(message, field, text);
    }
    return "";
  }
  Silent silent;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  const bool number = field->cpp_type() <= FieldDescriptor::CPPTYPE_FLOAT;
  return parser.ParseFieldValueFromString(number ? Decimal(text) : text, field, message) ? "" : Expected(field, text);
}

void ClearField(Message* root, const std::string& path) {
  Message* message = MutableHolder(root, path);
  message->GetReflection()->ClearField(message, message->GetDescriptor()->FindFieldByName(LastName(path)));
}

RunConfig ConfigOf(const Message& run) {
  RunConfig config;
  VisitKeys(config, Reader{run});
  return config;
}

void WriteConfig(const RunConfig& config, Message* run) { VisitKeys(config, Writer{run}); }

std::string FieldText(const Message& root, const std::string& path) {
  const Message& message = Holder(root, path);
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(LastName(path));
  const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 1;
  std::string all;
  if (count != 1) all = "[";
  for (int i = 0; i < count; ++i) {
    std::string text;
    TextFormat::PrintFieldValueToString(message, field, field->is_repeated() ? i : -1, &text);
    all += (i > 0 ? ", " : "") + text;
  }
  return count != 1 ? all + "]" : all;
}

}  // namespace longspan
