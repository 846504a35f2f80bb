// Signals that ask a run to stop in good order. SIGUSR1 and SIGUSR2, which mpirun forwards to every rank, leave it the
// time that it takes; SIGTERM and SIGINT, which mpirun follows with SIGKILL within seconds, do not.
#pragma once

namespace longspan {

// From now on these signals are only noted, to the end of the process; a second SIGTERM or SIGINT ends it. One that the
// process was started to ignore stays ignored.
void WatchStopSignals();

// The most urgent so far, SIGTERM before SIGINT, SIGUSR2 and SIGUSR1; 0 when none came. On this rank: others may have
// others (launch/train/stopping.h).
int PendingStopSignal();

}  // namespace longspan
