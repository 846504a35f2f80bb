#include "launch/commands/data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <string_view>

#include "launch/data/find_files.h"
#include "launch/data/megatron.h"
#include "launch/data/tokenizer.h"
#include "launch/train/progress.h"
#include "runtime/error.h"
#include "runtime/files/mapped_file.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

// Text is tokenised in slices, several at a time, so that neither many small files nor a single huge one needs more
// memory than a batch. A file longer than a slice is cut after a line end.
constexpr size_t kSliceBytes = size_t{4} << 20;
constexpr int64_t kBatchBytes = int64_t{16} << 20;
constexpr size_t kBatchFiles = 4096;

// Length of the first slice of `text`.
size_t SliceLength(std::string_view text) {
  if (text.size() <= kSliceBytes) return text.size();
  const size_t line_end = text.substr(0, kSliceBytes).rfind('\n');
  if (line_end != std::string_view::npos) return line_end + 1;
  size_t length = kSliceBytes;
  while (length > kSliceBytes - 4 && (static_cast<uint8_t>(text[length]) & 0xC0) == 0x80)
    --length;  // inside a character
  return length;
}

class DatasetBuilder {
 public:
  DatasetBuilder(const DataOptions& options, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), held_out_share_(options.validation_fraction) {
    const bool split = held_out_share_ > 0;
    train_.emplace(split ? options.output + "_train" : options.output, tokenizer.vocab());
    if (split) validation_.emplace(options.output + "_validation", tokenizer.vocab());
  }

  void Add(MappedFile file) {
    if (file.size() == 0) {
      ++empty_;
      return;
    }
    if (std::memchr(file.data(), 0, file.size()) != nullptr) {
      ++binary_;
      return;
    }
    std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    while (!text.empty()) {
      const size_t length = SliceLength(text);
      slices_.push_back({text.substr(0, length), {}, length == text.size() ? file.path() : ""});
      slice_bytes_ += static_cast<int64_t>(length);
      text.remove_prefix(length);
      if (slice_bytes_ >= kBatchBytes) Flush();
    }
    files_.push_back(std::move(file));
    if (files_.size() >= kBatchFiles) Flush();
  }

  void Finish() {
    Flush();
    if (documents() == 0) Fail(ExitCode::kData, "no text found: {} files are empty, {} binary", empty_, binary_);
    if (validation_ && (validation_->documents() == 0 || train_->documents() == 0)) {
      Fail(ExitCode::kUsage, "--validation-fraction {}: leaves one part of {} documents empty", held_out_share_,
           documents());
    }
    train_->Finish();
    if (validation_) validation_->Finish();
  }

  int64_t documents() const { return train_->documents() + (validation_ ? validation_->documents() : 0); }
  int64_t tokens() const { return train_->tokens() + (validation_ ? validation_->tokens() : 0); }
  int64_t empty() const { return empty_; }
  int64_t binary() const { return binary_; }
  int64_t text_bytes() const { return text_bytes_; }
  int64_t longest() const { return longest_; }
  const std::string& longest_path() const { return longest_path_; }
  const std::optional<MegatronWriter>& train() const { return train_; }
  const std::optional<MegatronWriter>& validation() const { return validation_; }

 private:
  struct Slice {
    std::string_view text;
    std::vector<int32_t> ids;
    std::string ends;  // path of the document that ends here; "" = it goes on
  };

  // Tokenises the slices on all threads, then writes them in order.
  void Flush() {
    std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < slices_.size(); ++i) {
      try {
        slices_[i].ids = tokenizer_.Encode(slices_[i].text);
      } catch (...) {
#pragma omp critical(longspan_data_error)
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);

    for (const Slice& slice : slices_) {
      MegatronWriter& writer = IsHeldOut(documents()) ? *validation_ : *train_;
      writer.Append(slice.ids);
      text_bytes_ += static_cast<int64_t>(slice.text.size());
      length_ += static_cast<int64_t>(slice.ids.size());
      if (slice.ends.empty()) continue;
      writer.EndDocument();
      if (length_ > longest_) {
        longest_ = length_;
        longest_path_ = slice.ends;
      }
      length_ = 0;
    }
    slices_.clear();
    slice_bytes_ = 0;
    // A file that Add is still cutting is not among these yet.
    files_.clear();
  }

  // Held-out documents lie evenly among all, as many as the share asks for.
  bool IsHeldOut(int64_t document) const {
    const auto before = [&](int64_t count) { return std::floor(static_cast<double>(count) * held_out_share_); };
    return before(document + 1) > before(document);
  }

  const Tokenizer& tokenizer_;
  const double held_out_share_;
  std::optional<MegatronWriter> train_, validation_;
  std::vector<MappedFile> files_;  // that the slices point into
  std::vector<Slice> slices_;
  int64_t slice_bytes_ = 0;
  int64_t empty_ = 0, binary_ = 0, text_bytes_ = 0;
  int64_t length_ = 0;  // of the document being written, in tokens
  int64_t longest_ = 0;
  std::string longest_path_;
};

void CheckOptions(const DataOptions& options) {
  if (options.inputs.empty()) Fail(ExitCode::kUsage, "data: expected at least one folder or file");
  if (options.output.empty()) Fail(ExitCode::kUsage, "data: expected --output PREFIX");
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    Fail(ExitCode::kUsage, "--validation-fraction: expected 0 to below 1, found {}", options.validation_fraction);
  }
}

void MakeFolderOf(const std::string& prefix) {
  const auto folder = std::filesystem::path(prefix).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) Fail(ExitCode::kIo, "{}: cannot create the folder: {}", folder.string(), error.message());
}

void PrintWritten(const std::string& prefix, const MegatronWriter& writer) {
  fmt::print("written      {}.bin, .idx: {} documents, {} tokens\n", prefix, writer.documents(), writer.tokens());
}

}  // namespace

int RunData(const DataOptions& options) {
  CheckOptions(options);
  const double start = WallSeconds();
  const auto tokenizer = MakeTokenizer(options.tokenizer, options.model);
  FoundFiles found = FindFiles(options);
  int64_t total_bytes = 0;
  for (const FoundFile& file : found.files) total_bytes += file.bytes;

  MakeFolderOf(options.output);
  DatasetBuilder builder(options, *tokenizer);
  {
    Progress progress("tokenising", total_bytes);
    int64_t bytes = 0;
    for (const FoundFile& file : found.files) {
      std::optional<MappedFile> mapped;
      try {
        mapped.emplace(file.path);
      } catch (const Error&) {
        if (found.unreadable++ == 0) found.first_unreadable = file.path;
      }
      if (mapped) builder.Add(std::move(*mapped));
      bytes += file.bytes;
      progress.Update(bytes, fmt::format("{} of {}", FormatBytes(bytes), FormatBytes(total_bytes)));
    }
    builder.Finish();
  }

  fmt::print("files        {} read, {} empty and {} binary skipped\n", builder.documents(), builder.empty(),
             builder.binary());
  if (found.unreadable > 0) {
    fmt::print("unreadable   {}, the first {}\n", found.unreadable, found.first_unreadable);
  }
  fmt::print("tokens       {} from {} of text ({:.2f} bytes a token), {:.1f} s\n", builder.tokens(),
             FormatBytes(builder.text_bytes()),
             static_cast<double>(builder.text_bytes()) / static_cast<double>(std::max<int64_t>(builder.tokens(), 1)),
             WallSeconds() - start);
  fmt::print("longest      {} tokens: {}\n", builder.longest(), builder.longest_path());
  fmt::print("vocabulary   {} (model.vocab), tokenizer {}\n", tokenizer->vocab(), options.tokenizer);
  PrintWritten(builder.validation() ? options.output + "_train" : options.output, *builder.train());
  if (builder.validation()) PrintWritten(options.output + "_validation", *builder.validation());
  return 0;
}

}  // namespace longspan
