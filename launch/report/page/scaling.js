// Weak and strong scaling over runs (launch/report/scaling.h says what `data` is).
function showTable(found, index) {
  const section = element('section', null, { className: 'wide' });
  const rows = found.rows.map((row) => ({ ...row, ...data.runs[row.run] }));
  const plots = element('div', null, { className: 'plots' });
  const tokens = found.tokens.toLocaleString('en');
  section.append(
    element('h2', found.kind === 'weak' ? `Weak scaling, ${tokens} tokens a step and rank` : `Strong scaling, ${tokens} tokens a step`),
    plots);
  const scroll = element('div', null, { className: 'scroll' });
  scroll.append(table(
    ['ranks', 'dp x cp', 'step ms', 'tokens/s', 'speed-up', 'efficiency', 'exposed', 'MiB a rank', '<run'],
    rows.map((row) => [row.ranks, `${row.dp} x ${row.cp}`, ms(row.step), scaled(row.tokens_per_second), fixed(row.speedup) + 'x',
      percent(row.efficiency), percent(row.exposed_share), fixed(row.memory / 2 ** 20, 0), row.run])));
  section.append(scroll);
  $('tables').append(section);

  const ranks = rows.map((row) => row.ranks);
  const plot = (name, list, yTitle) => {
    const box = element('div', null, { className: 'chart' });
    box.append(element('canvas', null, { id: `${name}-${index}` }));
    plots.append(box);
    chart(`${name}-${index}`, () => curves(list(), 'ranks', yTitle, { zero: true }));
  };
  plot('throughput', () => [
    { label: 'measured', x: ranks, y: rows.map((row) => row.tokens_per_second), colour: colour('work'), dots: true, line: true },
    { label: 'ideal', x: ranks, y: ranks.map((count) => rows[0].tokens_per_second * count / ranks[0]), colour: colour('faint'), dash: true },
  ], 'tokens a second');
  plot('efficiency', () => [
    { label: 'efficiency', x: ranks, y: rows.map((row) => 100 * row.efficiency), colour: colour('good'), dots: true, line: true },
  ], 'efficiency, %');
}

data.tables.forEach(showTable);
if (data.tables.length === 0) {
  $('tables').append(element('p', 'No two of these runs on different numbers of ranks have the same tokens a step, or a step and rank.'));
}
drawAlways();
