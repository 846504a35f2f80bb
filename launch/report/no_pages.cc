// Of a build without Chart.js.
#include "launch/report/page.h"

namespace longspan {

const char* ReportTemplate() { return nullptr; }
const char* ScalingTemplate() { return nullptr; }

}  // namespace longspan
