// The report of one run (launch/report/page.h says what `data` is).
const report = data.report;
const parts = ['work', 'data', 'other', 'waiting', 'moving'];
const mostRows = 32;  // of a table or chart with a row a rank

function header() {
  document.title = 'Longspan report: ' + report.run;
  $('run').textContent = report.run;
  $('about').textContent = `${report.ranks} ranks = dp ${report.dp} x cp ${report.cp}, ${report.device}, ` +
    `${report.steps.count} steps from ${report.steps.first} to ${report.steps.last}${report.running ? ', so far' : ''}; ` +
    (!report.steps.seen ? 'CUDA graphs, whose kernels are not seen; ' :
     report.steps.seen < report.steps.count ? `CUDA graphs but for ${report.steps.seen} of them, whose kernels are seen; ` : '') +
    `${report.program}, ${report.time}`;
  for (const problem of report.problems) $('problems').append(element('li', problem));
  const step = report.breakdown.step, throughput = data.metrics.tokens_per_second;
  figures([
    ['a step', ms(report.steps.mean) + ' ms'],
    ['tokens a second', scaled(throughput.slice().sort((a, b) => a - b)[throughput.length >> 1])],
    ['FLOP a second', scaled(report.flops.per_second)],
    ['of the measured peak', percent(report.flops.peak_share)],
    ['exposed transfers', percent((report.breakdown.waiting + report.breakdown.moving) / step)],
    ['training, of all time', percent(report.ledger.training / report.ledger.total)],
  ]);
  $('footer').textContent = `Clocks of the ranks agree within ${ms(report.clock_error, 3)} ms. Own time of a rank is its step ` +
    'without transfers; waiting is for the last rank to begin a transfer; moving is data, as far as kernels do not hide it.';
}

function costs() {
  for (const cost of report.costs) {
    const item = element('li', cost.what);
    if (cost.advice) item.append(element('span', 'try: ' + cost.advice, { className: 'try' }));
    $('costs').append(item);
  }
}

function when(straggler) {
  if (straggler.single.length > 0) return 'one-off, step ' + straggler.single.join(', ');
  if (straggler.since_start && straggler.to_end) return 'chronic';
  return straggler.to_end ? 'since step ' + straggler.first_step : `steps ${straggler.first_step} to ${straggler.last_step}`;
}

function stragglers() {
  if (report.stragglers.length === 0) {
    $('stragglers').append(element('p', 'No rank stands out.'));
    return;
  }
  $('stragglers').append(table(
    ['<rank', '<class', '<when', '<where', 'over by ms', 'ratio', 'would save'],
    report.stragglers.map((s) => [s.rank, s.class, when(s), s.link ? 'link ' + s.link : s.held_by ? 'GPU ' + s.held_by : s.stage ? stageName(s) : 'spread over stages', ms(s.excess),
      fixed(s.ratio) + 'x', percent(s.saving_share)])));
}

// Indices into report.rank: all, or those with the most own time.
function shownRanks() {
  const all = report.rank.map((_, i) => i);
  if (all.length <= mostRows) return all;
  return all.sort((a, b) => report.rank[b].own - report.rank[a].own).slice(0, mostRows).sort((a, b) => a - b);
}

function ranks() {
  const shown = shownRanks();
  $('ranks-box').style.height = `${4.5 + 1.5 * shown.length}rem`;
  chart('ranks', () => ({
    type: 'bar',
    data: {
      labels: shown.map((i) => 'rank ' + report.rank[i].rank),
      datasets: parts.map((part) => ({
        label: part, data: shown.map((i) => 1e3 * report.rank[i][part]), backgroundColor: colour(part),
      })),
    },
    options: {
      indexAxis: 'y',
      onClick: (event, found, made) => {
        const at = made.getElementsAtEventForMode(event, 'y', { intersect: false }, true);
        if (at.length > 0) showRank(shown[at[0].index]);
      },
      interaction: { mode: 'y', intersect: false },
      plugins: { legend: { position: 'bottom' },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label} ${fixed(item.raw)} ms` } } },
      scales: { x: { stacked: true, title: { display: true, text: 'ms of a step' } }, y: { stacked: true } },
    },
  }));
  for (const i of shown) {
    $('pick').append(element('button', report.rank[i].rank, { type: 'button', onclick: () => showRank(i) }));
  }
}

// What rank report.rank[i] did, beside the median rank.
function showRank(i) {
  const row = report.rank[i];
  for (const button of $('pick').children) button.setAttribute('aria-pressed', button.textContent === String(row.rank));
  const stages = report.stages.slice().sort((a, b) =>
    (b.seconds.by_rank[i] - b.seconds.median) - (a.seconds.by_rank[i] - a.seconds.median)).slice(0, 6);
  const found = report.stragglers.filter((s) => s.rank === row.rank).map((s) =>
    ` Slow by its own doing (${s.class}), ${when(s)}: steps would save ${percent(s.saving_share)}.`).join('');
  $('rank').replaceChildren(
    element('p', `Rank ${row.rank} on ${row.host}: ${ms(row.own)} ms of its own in a step of ${ms(row.step)}; it waits ` +
      `${ms(row.waiting)} ms for others, and others ${ms(row.awaited)} ms for it.${found}`),
    table(['<where it is most over the median rank', 'ms', 'median', 'over'],
      stages.map((s) => [stageName(s), ms(s.seconds.by_rank[i]), ms(s.seconds.median),
        ms(s.seconds.by_rank[i] - s.seconds.median)])));
}

function heat() {
  const step = report.breakdown.step, shown = shownRanks();
  const stages = report.stages.filter((s) => s.seconds.mean > 0.002 * step).slice(0, 18);
  const cell = (seconds, median) => {
    const over = (seconds - median) / step;
    const made = element('td', ms(seconds));
    const strength = Math.min(0.85, Math.abs(over) / 0.1);
    if (strength > 0.02) {
      made.style.backgroundColor = `rgba(${colour(over > 0 ? 'heat-over' : 'heat-under')}, ${strength.toFixed(3)})`;
    }
    return made;
  };
  const made = table(['<rank'].concat(stages.map(stageName)), shown.map((i) =>
    [String(report.rank[i].rank)].concat(stages.map((s) => cell(s.seconds.by_rank[i], s.seconds.median)))));
  made.className = 'heat';
  $('heat').append(made);
  if (shown.length < report.rank.length) {
    $('heat').append(element('p', `${shown.length} of ${report.rank.length} ranks: those with the most own time.`, { className: 'note' }));
  }
}

function timeline() {
  const line = data.timeline;
  if (!line) {
    $('timeline-section').hidden = true;
    return;
  }
  $('timeline-title').textContent = `Timeline of step ${line.step}`;
  const label = (span) => `rank ${span.rank}${span.beside ? ' beside' : ''}`;
  const labels = [...new Set(line.spans.map(label))].sort(new Intl.Collator('en', { numeric: true }).compare);
  $('timeline-box').style.height = `${5 + 1.6 * labels.length}rem`;
  chart('timeline', () => ({
    type: 'bar',
    data: {
      labels,
      datasets: ['work', 'data', 'waiting', 'moving'].map((what) => ({
        label: what, backgroundColor: colour(what), borderColor: colour('card'), borderWidth: { left: 0.5 }, borderSkipped: false,
        grouped: false, barPercentage: 1, categoryPercentage: 0.8,
        data: line.spans.filter((span) => span.what === what).map((span) =>
          ({ x: [1e3 * span.begin, 1e3 * (span.begin + span.seconds)], y: label(span), span })),
      })),
    },
    options: {
      indexAxis: 'y',
      plugins: { legend: { position: 'bottom' }, tooltip: { callbacks: {
        label: (item) => `${item.raw.span.name}: ${item.dataset.label} ${ms(item.raw.span.seconds, 3)} ms` +
          (item.raw.span.bytes > 0 ? `, ${bytes(item.raw.span.bytes)}` : '') } } },
      scales: { x: { min: 0, max: 1e3 * line.seconds, title: { display: true, text: 'ms since the step began' },
        ticks: { maxRotation: 0, callback: (value) => Number(value.toFixed(2)) } } },
    },
  }));
}

function overSteps() {
  const m = data.metrics;
  if (data.own && data.own.ranks.length > 0) {
    chart('own', () => curves(data.own.ranks.map((rank, i) => ({
      label: 'rank ' + rank.rank, x: data.own.step, y: rank.seconds.map((seconds) => 1e3 * seconds), colour: palette(i),
    })), 'step', 'ms of own time', { zero: true }));
  } else {
    $('own-section').hidden = true;
  }
  chart('loss', () => curves([
    { label: 'training', x: m.step, y: m.loss, colour: colour('work') },
    { label: 'held out', x: m.evaluations.map((e) => e[0]), y: m.evaluations.map((e) => e[1]), colour: colour('waiting'),
      dots: true, line: true },
  ], 'step', 'loss'));
  if (m.positions.length > 0) {
    chart('positions', () => curves([{ label: 'held out', x: m.positions.map((p) => p[1]), y: m.positions.map((p) => p[2]),
      colour: colour('waiting'), dots: true, line: true }], 'position, up to', 'loss', { xType: 'logarithmic' }));
  } else {
    $('positions-section').hidden = true;
  }
  chart('throughput', () => curves([{ label: 'tokens a second', x: m.step, y: m.tokens_per_second, colour: colour('good') }],
    'step', 'tokens a second', { zero: true }));
  chart('memory', () => curves([{ label: 'in use', x: m.step, y: m.memory.map((b) => b === null ? null : b / 2 ** 20),
    colour: colour('moving') }], 'step', 'MiB, the largest rank', { zero: true }));
  chart('selection', () => curves([{ label: 'of other ranks\' blocks fetched', x: m.step,
    y: m.coverage.map((share) => share === null ? null : 100 * share), colour: colour('data') }],
  'step', '% of other ranks\' blocks fetched', { zero: true }));
}

function transfers() {
  $('transfers').append(table(
    ['<stage', '<operation', 'calls', 'MiB', 'of other nodes', 'waiting ms', 'moving ms', 'exposed ms', 'bus GB/s'],
    report.transfers.map((t) => [stageName({ ...t, layer: -1 }), t.name.replace('comm.', ''), fixed(t.calls, 1),
      fixed(t.bytes / 2 ** 20, 3), t.far > 0 ? fixed(t.far / 2 ** 20, 3) : '–', ms(t.waiting, 3), ms(t.moving, 3), ms(t.exposed, 3),
      t.bus_bandwidth === null ? '–' : fixed(t.bus_bandwidth / 1e9, 3)])));
}

function memoryAndPlan() {
  $('memory-rows').append(table(['<most at a time, MiB', 'largest rank', 'smallest'],
    report.memory.map((row) => [(row.host ? 'host: ' : '') + row.use, fixed(row.max / 2 ** 20), fixed(row.min / 2 ** 20)])));
  if (report.plan.length === 0) {
    $('plan-section').hidden = true;
    return;
  }
  const units = { bytes: [2 ** -20, 'MiB'], FLOP: [1e-9, 'GFLOP'], seconds: [1e3, 'ms'] };
  $('plan').append(table(['<', 'planned', 'measured', '<', 'off by'], report.plan.map((row) => {
    const [scale, unit] = units[row.unit];
    return [row.what, fixed(scale * row.planned, 3), fixed(scale * row.measured, 3), unit,
      row.planned > 0 ? percent(row.measured / row.planned - 1) : '–'];
  })));
}

function gpus() {
  if (report.gpus.length === 0) {
    $('gpus-section').hidden = true;
    return;
  }
  chart('clocks', () => curves(data.clocks.map((gpu, i) => ({
    label: 'rank ' + gpu.rank, x: gpu.seconds, y: gpu.mhz, colour: palette(i),
  })), 'seconds since the run was last started', 'MHz', { zero: true }));
  $('gpus').append(table(
    ['rank', 'MHz', 'lowest', 'of', 'memory MHz', 'W', 'of', 'most °C', 'held', '<by', '<new memory errors'],
    report.gpus.map((gpu) => [gpu.rank, fixed(gpu.sm_clock, 0), fixed(gpu.lowest, 0), fixed(gpu.most_sm_clock, 0),
      fixed(gpu.memory_clock, 0), fixed(gpu.power, 0), fixed(gpu.power_limit, 0), fixed(gpu.temperature, 0), percent(gpu.held),
      gpu.held_by || '–', gpu.corrected + gpu.uncorrected === 0 ? 'none' : `${gpu.corrected} corrected, ${gpu.uncorrected} not`])));
}

function selection() {
  const found = report.selection;
  if (found.layers.length === 0) {
    $('selection-rows').append(element('p', 'train.record_selection shows which blocks, and what neighbours have in common.', { className: 'note' }));
    return;
  }
  $('selection-rows').append(
    element('p', `Before step ${found.step}: where chosen blocks lie; how many a rank's queries chose, and of those that they ` +
      'see; what neighbours share (Jaccard) and choose together; the block that most queries chose.', { className: 'note' }),
    table(['layer', 'local', 'halo', 'remote', 'distinct', 'share', 'Jaccard', '2', '4', '8', 'hottest'],
      found.layers.map((row) => [row.layer, percent(row.local), percent(row.halo), percent(row.remote),
        fixed(row.distinct_blocks, 1), percent(row.distinct_share), fixed(row.jaccard, 3), fixed(row.union_2, 1),
        fixed(row.union_4, 1), fixed(row.union_8, 1), percent(row.hottest)])));
}

function ledger() {
  const kinds = [['training', 'good'], ['startup', 'work'], ['data', 'data'], ['checkpoint', 'moving'],
    ['evaluation', 'other'], ['lost', 'waiting'], ['stopped', 'line'], ['other', 'faint']];
  chart('ledger', () => ({
    type: 'bar',
    data: { labels: [''], datasets: kinds.filter(([kind]) => report.ledger[kind] > 0).map(([kind, name]) =>
      ({ label: kind, data: [report.ledger[kind]], backgroundColor: colour(name) })) },
    options: {
      indexAxis: 'y',
      plugins: { legend: { position: 'bottom' },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label} ${fixed(item.raw, 1)} s` } } },
      scales: { x: { stacked: true, max: report.ledger.total, title: { display: true, text: 'seconds' } }, y: { stacked: true } },
    },
  }));
}

for (const part of [header, costs, stragglers, ranks, heat, timeline, gpus, overSteps, transfers, memoryAndPlan, selection, ledger]) part();
drawAlways();
if (report.rank.length > 0) {
  const blamed = report.stragglers.length > 0 ? report.rank.findIndex((row) => row.rank === report.stragglers[0].rank) : 0;
  showRank(Math.max(0, blamed));
}
