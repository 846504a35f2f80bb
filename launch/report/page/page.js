// What the pages share: elements whose texts are only ever text, numbers as people read them, and charts that follow the
// reader's colours.
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);

function $(id) { return document.getElementById(id); }

function element(tag, text, properties = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  Object.assign(made, properties);
  return made;
}

function fixed(value, digits = 2) {
  return typeof value === 'number' && isFinite(value) ? value.toFixed(digits) : '–';
}
function ms(seconds, digits = 2) { return fixed(1e3 * seconds, digits); }
function percent(share, digits = 1) { return share === null || share === undefined ? '–' : fixed(100 * share, digits) + '%'; }
function scaled(value) {
  if (typeof value !== 'number' || !isFinite(value)) return '–';
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit + 1 < units.length) { value /= 1000; ++unit; }
  return Number(value.toPrecision(3)) + (units[unit] ? ' ' + units[unit] : '');
}
function bytes(value) { return fixed(value / 2 ** 20, value < 2 ** 24 ? 2 : 0) + ' MiB'; }
function stageName(row) {
  return row.stage.replaceAll('_', ' ') + (row.pass ? ' ' + row.pass : '') + (row.layer >= 0 ? ', layer ' + row.layer : '');
}

// heads: names; those that begin with '<' stand at the left. rows: arrays of texts, or of cells that are elements.
function table(heads, rows) {
  const made = element('table');
  const head = made.createTHead().insertRow();
  const left = heads.map((name) => name.startsWith('<'));
  heads.forEach((name, i) => head.append(element('th', name.replace('<', ''), { className: left[i] ? 'text' : '' })));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((cell, i) => {
      line.append(cell instanceof Element ? cell : element('td', cell, { className: left[i] ? 'text' : '' }));
    });
  }
  return made;
}

function figures(list) {
  for (const [name, value] of list) {
    const box = element('div');
    box.append(element('dt', name), element('dd', value));
    $('figures').append(box);
  }
}

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim(); }
// As many as wanted, told apart by hue.
function palette(i) { return `hsl(${(211 + 137.5 * i) % 360} 55% 52%)`; }

// Charts are made anew when the reader's colours change, or go to paper.
const makers = [], charts = [];
function chart(id, make) { makers.push([id, make]); }
function draw() {
  while (charts.length > 0) charts.pop().destroy();
  Chart.defaults.color = colour('faint');
  Chart.defaults.borderColor = colour('line');
  Chart.defaults.font.family = 'system-ui, sans-serif';
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  Chart.defaults.plugins.legend.labels.boxWidth = 12;
  for (const [id, make] of makers) charts.push(new Chart($(id), make()));
}
function drawAlways() {
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  for (const [event, paper] of [['beforeprint', true], ['afterprint', false]]) {
    addEventListener(event, () => {
      document.documentElement.classList.toggle('print', paper);
      draw();
    });
  }
}

// Curves over one x axis: [{label, x, y, colour, dots, line, dash}].
function curves(list, xTitle, yTitle, options = {}) {
  return {
    type: 'line',
    data: {
      datasets: list.map((curve) => ({
        label: curve.label,
        data: curve.x.map((x, i) => ({ x, y: curve.y[i] })).filter((point) => point.y !== null),
        borderColor: curve.colour, backgroundColor: curve.colour, borderWidth: 1.5,
        pointRadius: curve.dots ? 4 : 0, pointHitRadius: 6, showLine: !curve.dots || Boolean(curve.line),
        borderDash: curve.dash ? [5, 4] : [],
      })),
    },
    options: {
      interaction: { mode: 'nearest', axis: 'x', intersect: false },
      plugins: { legend: { display: list.length > 1, position: 'bottom' } },
      scales: {
        x: { type: options.xType || 'linear', min: Math.min(...list.flatMap((curve) => curve.x.slice(0, 1))), title: { display: true, text: xTitle }, ticks: { precision: 0, maxRotation: 0 } },
        y: { type: options.yType || 'linear', beginAtZero: Boolean(options.zero), title: { display: true, text: yTitle } },
      },
    },
  };
}
