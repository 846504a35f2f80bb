#include "launch/train/announcement.h"

#include <fmt/format.h>

#include "runtime/count.h"
#include "runtime/trace.h"

namespace longspan {

std::string Announcement(const RunConfig& config, const std::string& stage, const Job& job, Session& session,
                         const Sources& sources, const std::string& folder, const std::string& version,
                         const std::vector<HostMemory>& host) {
  const ModelConfig& model = config.model;
  const Mesh& mesh = job.mesh();
  const DType dtype = session.context().dtype;
  std::string text = fmt::format("longspan train: {} on {}, {}\n", config.name, job.device().name(), DTypeName(dtype));
  text += fmt::format("  program    {}, {}\n", version, UtcTime());
  const std::string indices =
      mesh.dp_size() > 1 && mesh.cp_size() > 1 ? fmt::format(" (rank r: dp r/{0}, cp r%{0})", mesh.cp_size()) : "";
  text += fmt::format("  ranks      {} = dp {} x cp {}, {} tokens of each sequence a rank{}\n", mesh.world().size(),
                      mesh.dp_size(), mesh.cp_size(), session.layout().tokens(), indices);
  text += fmt::format("  model      {} parameters, {}, D={} H={} G={} K={} V={} F={} X={}\n",
                      FormatCount(static_cast<double>(session.model().params().parameters())),
                      Count(model.layers, "layer"), model.hidden, model.heads, model.kv_heads, model.key_width,
                      model.value_width, model.ffn, model.vocab);
  text += fmt::format("  data       {}\n", sources.train->Summary());
  if (sources.validation) text += fmt::format("  held out   {}\n", sources.validation->Summary());
  text += fmt::format("  step       {} of {}, {}{}\n", Count(config.train.sequences_per_step, "sequence"),
                      Count(config.data.sequence_length, "token"), Count(config.train.steps, "step"), stage);
  if (job.device().kind() == DeviceKind::kGpu) {
    const AttentionSizes sizes = {dtype, model.heads, model.kv_heads, model.key_width, model.value_width};
    text += fmt::format("  attention  kernels {}, {} left to transfers\n",
                        session.ops().attention->Kernels(session.compute(), sizes),
                        Count(config.parallel.transfer_processors, "multiprocessor"));
  }
  text += fmt::format("  folder     {}\n", folder);
  return text + job.placement() + "\n" + MemoryTable(session.arena().Rows(), job.device().AvailableBytes(), host);
}

}  // namespace longspan
