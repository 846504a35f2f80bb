#include "launch/data/dataset_builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <numeric>

#include "launch/data/dataset_record.h"
#include "launch/data/encode_slice.h"
#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {
namespace {

// Text is tokenised in slices, several at a time, so that neither many small files nor a single huge one needs more
// memory than a batch.
constexpr int64_t kBatchBytes = int64_t{16} << 20;
constexpr size_t kBatchTexts = 4096;

void MakeFolderOf(const std::string& prefix) {
  const auto folder = std::filesystem::path(prefix).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) Fail(ExitCode::kIo, "{}: cannot create the folder: {}", folder.string(), error.message());
}

}  // namespace

DatasetBuilder::DatasetBuilder(const std::string& prefix, double held_out_share, const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), held_out_share_(held_out_share) {
  MakeFolderOf(prefix);
  const std::vector<std::string> parts =
      held_out_share_ > 0 ? std::vector<std::string>{prefix + "_train", prefix + "_validation"} : std::vector{prefix};
  for (const std::string& part : parts) {
    if (std::filesystem::exists(part + ".json") && !ReadDatasetRecord(part)) {
      Fail(ExitCode::kIo, "{}.json: is no record of a dataset, and would be replaced by one; choose another --output",
           part);
    }
    parts_.emplace_back(part, tokenizer);
  }
}

DatasetBuilder::Part::Part(const std::string& prefix, const Tokenizer& tokenizer)
    : prefix(prefix), tokens(prefix, tokenizer.vocab()), record(prefix + ".json") {
  if (!tokenizer.model().empty()) model.emplace(prefix + kTokenizerEnding);
}

int64_t DatasetBuilder::documents() const {
  return std::accumulate(parts_.begin(), parts_.end(), int64_t{0},
                         [](int64_t sum, const Part& part) { return sum + part.tokens.documents(); });
}

int64_t DatasetBuilder::tokens() const {
  return std::accumulate(parts_.begin(), parts_.end(), int64_t{0},
                         [](int64_t sum, const Part& part) { return sum + part.tokens.tokens(); });
}

void DatasetBuilder::Add(MappedFile file) {
  if (file.size() == 0) {
    ++empty_;
    return;
  }
  if (std::memchr(file.data(), 0, file.size()) != nullptr) {
    ++binary_;
    return;
  }
  Cut({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}, file.path());
  files_.push_back(std::move(file));
  FlushFull();
}

void DatasetBuilder::Add(std::string text, const std::string& name) {
  if (text.empty()) {
    ++empty_;
    return;
  }
  std::list<std::string> one;
  one.push_back(std::move(text));
  Cut(one.front(), name);
  texts_.splice(texts_.end(), one);
  FlushFull();
}

void DatasetBuilder::Cut(std::string_view text, const std::string& name) {
  text_bytes_ += static_cast<int64_t>(text.size());
  for (size_t number = 0; number * kSliceBytes < text.size(); ++number) {
    const size_t left = text.size() - number * kSliceBytes;
    slices_.push_back({text, number, {}, left <= kSliceBytes ? name : ""});
    slice_bytes_ += static_cast<int64_t>(std::min(left, kSliceBytes));
    if (slice_bytes_ >= kBatchBytes) Flush();
  }
}

void DatasetBuilder::FlushFull() {
  if (files_.size() + texts_.size() >= kBatchTexts) Flush();
}

void DatasetBuilder::Finish() {
  Flush();
  if (documents() == 0) {
    Fail(ExitCode::kData, "no text found: {} empty, {} binary", Count(empty_, "file"), binary_);
  }
  if (tokens() == 0) {
    Fail(ExitCode::kData, "no token found: the tokenizer leaves nothing of {} of text", Count(text_bytes_, "byte"));
  }
  const auto without = [](const Part& part) { return part.tokens.documents() == 0; };
  if (std::any_of(parts_.begin(), parts_.end(), without)) {
    Fail(ExitCode::kUsage, "--validation-fraction {}: leaves one part of {} empty", held_out_share_,
         Count(documents(), "document"));
  }
  std::vector<OutputFile*> files;
  for (Part& part : parts_) {
    const MegatronWriter& written = part.tokens;
    WriteDatasetRecord({.tokenizer = tokenizer_.kind(),
                        .tokenizer_hash = tokenizer_.hash(),
                        .tokens = written.tokens(),
                        .documents = written.documents(),
                        .largest_id = written.largest_id()},
                       &part.record);
    const std::vector<OutputFile*> pair = part.tokens.Complete();
    files.insert(files.end(), {pair[0], &part.record});
    if (part.model) {
      const std::string model = tokenizer_.model();
      part.model->Write(model.data(), std::ssize(model));
      files.push_back(&*part.model);
    }
    files.push_back(pair[1]);
  }
  CommitAll(files);
}

// Tokenises the slices on all threads, then writes them in order.
void DatasetBuilder::Flush() {
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < slices_.size(); ++i) {
    try {
      slices_[i].ids = EncodeSlice(tokenizer_, slices_[i].text, slices_[i].number);
    } catch (...) {
#pragma omp critical(longspan_data_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);

  for (const Slice& slice : slices_) {
    MegatronWriter& writer = (IsHeldOut(documents()) ? parts_.back() : parts_.front()).tokens;
    writer.Append(slice.ids);
    length_ += static_cast<int64_t>(slice.ids.size());
    if (slice.ends.empty()) continue;
    writer.EndDocument();
    if (length_ > longest_) {
      longest_ = length_;
      longest_name_ = slice.ends;
    }
    length_ = 0;
  }
  slices_.clear();
  slice_bytes_ = 0;
  // What Add is still cutting is not among these yet.
  files_.clear();
  texts_.clear();
}

// Held-out documents lie evenly among all, as many as the share asks for.
bool DatasetBuilder::IsHeldOut(int64_t document) const {
  const auto before = [&](int64_t count) { return std::floor(static_cast<double>(count) * held_out_share_); };
  return before(document + 1) > before(document);
}

}  // namespace longspan
