#include "launch/data/dataset_record.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launch/data/megatron.h"
#include "runtime/error.h"
#include "runtime/files/checksum.h"
#include "runtime/files/mapped_file.h"

namespace longspan {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kLargestBytes = 4096;  // nothing longer is a record

}  // namespace

std::optional<DatasetRecord> ReadDatasetRecord(const std::string& path) {
  const std::string name = MegatronPrefix(path) + ".json";
  if (!std::filesystem::is_regular_file(name)) return std::nullopt;
  const MappedFile file(name);
  if (file.size() == 0 || file.size() > kLargestBytes) return std::nullopt;
  const char* const text = reinterpret_cast<const char*>(file.data());
  const OrderedJson json = OrderedJson::parse(text, text + file.size(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("tokenizer_hash")) return std::nullopt;

  DatasetRecord record;
  const auto value = [&](const char* key) {
    if (!json.contains(key)) Fail(ExitCode::kData, "{}: expected a value of {}, found none", name, key);
    return json[key];
  };
  for (const auto& [key, to] :
       {std::pair{"tokenizer", &record.tokenizer}, {"tokenizer_hash", &record.tokenizer_hash}}) {
    const OrderedJson found = value(key);
    if (!found.is_string()) Fail(ExitCode::kData, "{}: {}: expected a string, found {}", name, key, found.dump());
    *to = found;
  }
  for (const auto& [key, to] :
       {std::pair{"tokens", &record.tokens}, {"documents", &record.documents}, {"largest_id", &record.largest_id}}) {
    const OrderedJson found = value(key);
    if (!found.is_number_unsigned() || found.get<uint64_t>() > INT64_MAX) {
      Fail(ExitCode::kData, "{}: {}: expected a whole number, found {}", name, key, found.dump());
    }
    *to = found;
  }
  return record;
}

std::optional<DatasetRecord> RecordOf(const Dataset& dataset) {
  if (dataset.format() != "Megatron") return std::nullopt;
  std::optional<DatasetRecord> all;
  const std::vector<Dataset::Span> spans = dataset.files();
  for (const Dataset::Span& file : spans) {
    const std::optional<DatasetRecord> record = ReadDatasetRecord(file.path);
    if (!record) return std::nullopt;
    if (record->tokens != file.tokens || record->documents != file.documents) {
      Fail(ExitCode::kData,
           "{}.json: is of {} documents with {} tokens, but the dataset has {} with {}: one was replaced without the "
           "other; remove the .json, or make the dataset again",
           MegatronPrefix(file.path), record->documents, record->tokens, file.documents, file.tokens);
    }
    if (!all) {
      all = record;
      continue;
    }
    if (record->tokenizer != all->tokenizer || record->tokenizer_hash != all->tokenizer_hash) {
      Fail(ExitCode::kData, "{}: expected one tokenizer, found {} in {} and {} in {}", dataset.path(), all->Tokenizer(),
           spans.front().path, record->Tokenizer(), file.path);
    }
    all->tokens += record->tokens;
    all->documents += record->documents;
    all->largest_id = std::max(all->largest_id, record->largest_id);
  }
  return all;
}

std::string TokenizerModelOf(const Dataset& dataset) {
  const std::optional<DatasetRecord> record = RecordOf(dataset);
  if (!record || record->tokenizer_hash.empty()) return "";
  for (const Dataset::Span& span : dataset.files()) {
    const std::string path = MegatronPrefix(span.path) + kTokenizerEnding;
    if (!std::filesystem::is_regular_file(path)) continue;
    const MappedFile file(path);
    if (ChecksumText(ChecksumOf(file.data(), file.size())) != record->tokenizer_hash) continue;
    return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())};
  }
  return "";
}

std::string DatasetRecord::Tokenizer() const {
  return tokenizer_hash.empty() ? tokenizer : fmt::format("{} (model {})", tokenizer, tokenizer_hash);
}

void WriteDatasetRecord(const DatasetRecord& record, OutputFile* file) {
  const OrderedJson json = {{"tokenizer", record.tokenizer},
                            {"tokenizer_hash", record.tokenizer_hash},
                            {"tokens", record.tokens},
                            {"documents", record.documents},
                            {"largest_id", record.largest_id}};
  const std::string text = json.dump(2) + "\n";
  file->Write(text.data(), static_cast<int64_t>(text.size()));
}

}  // namespace longspan
