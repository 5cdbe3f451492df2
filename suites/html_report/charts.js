/* The answers, accuracy against latency, parts of a request, layers, kernels, and cells without a result. */

const kindOf = (row) => `${report.data.records[row.record].backend} ${report.data.records[row.record].precision}`;

const answers = {
  id: "answers", title: "Answers",
  hint: () => `The fastest path of each shape, from all valid rows of the machine: the filters of precision and backend do not change it. ` +
    `Paths are compared by ${report.data.rank}. ` +
    `Several rows share the first place if the spread between processes explains their difference. ` +
    `The speed-up is that over ${report.data.baseline}; it is empty where that was not measured at the same shape.`,
  render(body, redraw) {
    const {state} = report;
    const listed = state.all ? report.data.workloads : workloadsOf(state.machine);
    body.append(element("div", {class: "controls"}, select("Answers for", [["", "the selected machine"], ["all", "all machines"]],
      state.all ? "all" : "", (value) => { state.all = value === "all"; redraw(); })));
    if (!listed.length) return false;
    const columns = [["shape", false], ["fastest", false], ["ms", true], ["speed-up", true], ["95% interval", true], ["remarks", false]];
    for (const workload of listed) {
      body.append(element("h3", {}, state.all ? `${workload.machine}: ${workload.name}` : workload.name));
      body.append(table(`Answers for ${workload.name}`, columns, workload.answers.map((answer) => answerRow(workload, answer))));
    }
    return true;
  },
};

function answerRow(workload, {batch, sequence, winners, lowest, rows}) {
  const cell = `${batch}x${sequence}`;
  if (lowest === null) return {record: null, cells: [cell, "no valid row", "", "", "", `${rows} ${rows === 1 ? "row" : "rows"} compared`]};
  const won = winners.map((index) => workload.rows[index]);
  const best = won[0] || workload.rows[lowest];
  const kinds = unique(won.map(kindOf));
  const same = won.length > 1 ? `${won.length} rows share the first place` : "";
  const remarks = won.length ? same : `not decided: the lowest time is that of ${kindOf(best)}; ${best.excluded}`;
  return {record: best.record, best: won.length > 0, cells: [cell, won.length ? kinds.join(", ") : "not decided", number(best.time[0], 4),
    best.speedup === null ? "" : `${number(best.speedup)}x`, `${number(best.time[1], 4)} to ${number(best.time[2], 4)}`, [remarks, best.options, `${rows} ${rows === 1 ? "row" : "rows"} compared`].filter(Boolean).join("; ")]};
}

/* A select of the batch size that a section shares with its neighbours. */
function batchSelect(rows, redraw) {
  const batches = unique(rows.map((row) => row.batch)).sort((a, b) => a - b);
  const points = (batch) => rows.filter((row) => row.batch === batch && Object.keys(row.tasks).length).length;
  if (!batches.includes(report.state.batch)) report.state.batch = batches.reduce((best, batch) => (points(batch) >= points(best) ? batch : best));
  return select("Batch size", batches.map((batch) => [batch, batch]), report.state.batch, (value) => { report.state.batch = Number(value); drawAll(); });
}

const pareto = {
  id: "pareto", title: "Latency and accuracy",
  hint: () => "The line joins the rows that no other row beats in both time and accuracy. Up and left is better. Invalid rows are not drawn.",
  render(body, redraw) {
    const {state} = report;
    const valid = filteredRows().filter((row) => !row.invalid);
    if (!valid.length) return false;
    const tasks = unique(valid.flatMap((row) => Object.keys(row.tasks))).sort();
    const measures = [...tasks, "cosine"];
    if (!measures.includes(state.measure)) state.measure = measures[0];
    const batch = batchSelect(valid, redraw);
    const names = measures.map((name) => [name, name === "cosine" ? "outputs: cosine to FP32" : `${name}: difference from FP32`]);
    body.append(element("div", {class: "controls"}, batch, select("Accuracy", names, state.measure, (value) => { state.measure = value; redraw(); })));
    const value = (row) => (state.measure === "cosine" ? (row.cosine === null ? null : 1 - row.cosine) : row.tasks[state.measure]?.[0] ?? null);
    const rows = valid.filter((row) => row.batch === state.batch && value(row) !== null);
    const series = latencySeriesOfKinds(rows);
    const log = state.measure === "cosine";
    const best = frontOf(rows, (row) => (log ? value(row) : -value(row)));
    const shown = shownSeries("pareto", series, (all) => new Set(all.slice().sort((a, b) => b.rows.some((row) => best.includes(row)) - a.rows.some((row) => best.includes(row))).slice(0, report.data.styles.most).map((one) => one.key)));
    body.append(seriesButtons("pareto", series, redraw));
    if (!rows.length) return true;
    const box = plotBox("Accuracy against latency");
    body.append(box);
    drawPareto(box, series.filter((one) => shown.has(one.key)), value, log);
    body.append(dataTable("Accuracy and latency", [["path", false], ["ms", true], [log ? "1 - cosine" : "difference", true], ["not beaten", false], ["options", false]],
      () => rows.slice().sort((a, b) => a.time[0] - b.time[0]).map((row) => ({record: row.record, best: best.includes(row),
        cells: [kindOf(row), number(row.time[0], 4), number(value(row), 4), best.includes(row) ? "yes" : "", row.options]}))));
    return true;
  },
};

function latencySeriesOfKinds(rows) {
  const groups = new Map();
  for (const row of rows.slice().sort((a, b) => a.time[0] - b.time[0])) {
    const {backend, precision} = report.data.records[row.record];
    const key = `${backend} ${precision}`;
    if (!groups.has(key)) groups.set(key, {key, backend, precision, kind: key, label: key, text: key, rows: []});
    groups.get(key).rows.push(row);
  }
  return [...groups.values()];
}

/* Rows that no other row beats in both time and loss. */
function frontOf(rows, loss) {
  const front = [];
  for (const row of rows.slice().sort((a, b) => a.time[0] - b.time[0] || loss(a) - loss(b))) {
    if (!front.length || loss(row) < loss(front.at(-1))) front.push(row);
  }
  return front;
}

function drawPareto(box, series, value, log) {
  const width = box.clientWidth, small = narrow(), height = small ? 400 : 460;
  const rows = series.flatMap((one) => one.rows);
  const floor = Math.min(...rows.map(value).filter((one) => one > 0), 1e-3) / 2;
  const y = (row) => (log ? Math.max(value(row), floor) : value(row));
  const styles = stylesOf(series);
  const traces = series.map((one) => {
    const style = styles.get(one.key);
    const text = one.rows.map((row) => rowText(row, `${number(row.time[0], 4)} ms; ${log ? "1 - cosine" : "difference"} ${number(value(row), 4)}`));
    return {type: "scatter", mode: "markers", x: one.rows.map((row) => row.time[0]), y: one.rows.map(y), hovertemplate: "%{text}<extra></extra>",
      text: text.map((one) => plain(one).replace(/; /g, "<br>")), records: one.rows.map((row, index) => [row.record, text[index]]),
      marker: {color: style.color, symbol: style.symbol, size: 10, opacity: 0.9, line: {color: css("--ink"), width: 0.7}}};
  });
  const front = frontOf(rows, (row) => (log ? value(row) : -value(row)));
  const margin = {l: small ? 74 : 86, r: 16, t: 16, b: 46};
  const xRange = range(rows.map((row) => row.time[0]), true, small ? 0.12 : 0.07), yRange = range(rows.map(y), log, 0.12);
  const steps = {x: front.map((row) => row.time[0]), y: front.map(y)};
  traces.push({type: "scatter", mode: "lines", ...steps, hoverinfo: "skip", line: {color: css("--ink"), width: 1.2, shape: "hv"}});
  const plotHeight = height - margin.t - margin.b;
  const share = (row) => ((log ? Math.log10(y(row)) : y(row)) - yRange[0]) / (yRange[1] - yRange[0]);
  const first = front.filter((row, index) => front.findIndex((other) => kindOf(other) === kindOf(row)) === index);
  const marked = first.filter((row, index) => index === 0 || Math.abs(share(row) - share(first[index - 1])) * plotHeight > 16);
  const annotations = marked.map((row) => {
    const left = Math.log10(row.time[0]) > (xRange[0] + xRange[1]) / 2;
    return {x: Math.log10(row.time[0]), y: log ? Math.log10(y(row)) : y(row), text: plain(kindOf(row)), showarrow: true, arrowhead: 0, arrowwidth: 1,
      arrowcolor: css("--soft"), ax: left ? -16 : 16, ay: -18, xanchor: left ? "right" : "left", font: {size: small ? 10 : 12, color: css("--ink")}};
  });
  const xTicks = ticks(10 ** xRange[0], 10 ** xRange[1], small ? 5 : 8);
  const yTicks = log ? ticks(10 ** yRange[0], 10 ** yRange[1]) : null;
  draw(box, traces, layout(width, height, {margin, annotations,
    xaxis: {type: "log", range: xRange, title: {text: report.data.unit, standoff: 8}, tickmode: "array", tickvals: xTicks, ticktext: xTicks.map((one) => number(one))},
    yaxis: {type: log ? "log" : "linear", range: log ? yRange.slice().reverse() : yRange, title: {text: log ? "1 - cosine to FP32" : "difference from FP32", standoff: 4},
      ...(yTicks ? {tickmode: "array", tickvals: yTicks, ticktext: yTicks.map((one) => number(one))} : {})}}));
}

/* Horizontal bars. A bar series is {name, values, texts, records}; categories are listed from the top. */
function drawBars(box, categories, bars, axes) {
  const width = box.clientWidth, small = narrow();
  const names = categories.map((name) => plain(wrapLabel(name, small ? 20 : 44).slice(0, 3).join("\n")).replace(/\n/g, "<br>"));
  const letters = Math.max(...categories.flatMap((name) => wrapLabel(name, small ? 20 : 44)).map((text) => text.length));
  const thick = axes.stacked ? 30 : axes.overlay ? 27 : 15 * bars.length + 12;
  const lines = Math.max(...names.map((name) => name.split("<br>").length));
  const margin = {l: Math.min(letters * (small ? 5.8 : 6.8) + 16, width * 0.45), r: axes.stacked ? 20 : 56, t: bars.length > 1 ? (small ? 74 : 40) : 14, b: 46};
  const positions = categories.map((_, index) => index);
  const traces = bars.map((bar, index) => ({
    type: "bar", orientation: "h", name: plain(bar.name), y: positions, x: bar.values, text: bar.texts.map((text) => (text ? plain(text) : "")),
    textposition: axes.stacked ? "inside" : "outside", insidetextanchor: "middle", textangle: 0, constraintext: "none", cliponaxis: false,
    hovertext: bar.hover.map((text) => plain(text).replace(/; /g, "<br>")), hovertemplate: "%{hovertext}<extra></extra>",
    marker: {color: palette()[index % palette().length], line: {color: css("--ground"), width: 1},
      pattern: {shape: PATTERNS[index % PATTERNS.length], fgcolor: css("--ground"), size: 6, solidity: 0.2, fillmode: "overlay"}},
    textfont: {size: small ? 10 : 11, ...(axes.stacked ? {} : {color: css("--ink")})}, records: bar.records.map((record, place) => [record, bar.hover[place]]),
  }));
  const values = bars.flatMap((bar) => bar.values).filter((value) => value > 0);
  const logRange = axes.floor ? [Math.log10(axes.floor), Math.log10(Math.max(...values, axes.floor * 100)) + 0.15] : null;
  const logTicks = logRange ? ticks(10 ** logRange[0], 10 ** logRange[1], small ? 5 : 8) : null;
  draw(box, traces, layout(width, Math.max(thick, lines * 15 + 4) * categories.length + margin.t + margin.b, {
    margin, barmode: axes.stacked ? "stack" : axes.overlay ? "overlay" : "group", bargap: 0.25, showlegend: bars.length > 1, shapes: axes.shapes || [],
    legend: {orientation: "h", x: small ? -margin.l / Math.max(width - margin.l - margin.r, 1) : 0, xanchor: "left", y: 1, yanchor: "bottom", traceorder: "normal", itemclick: false, itemdoubleclick: false, font: {size: small ? 10 : 12}},
    xaxis: {title: {text: axes.title, standoff: 8}, type: logRange ? "log" : "linear", rangemode: "tozero", ...(axes.range ? {range: axes.range} : {}),
      ...(logTicks ? {range: logRange, tickmode: "array", tickvals: logTicks, ticktext: logTicks.map((one) => number(one))} : {nticks: small ? 5 : 10})},
    yaxis: {autorange: "reversed", tickmode: "array", tickvals: positions, ticktext: names, ticks: "", tickfont: {size: small ? 10 : 12}, showgrid: false}}));
}

const breakdown = {
  id: "request", title: "Parts of a request",
  hint: () => "Enqueue is the host time until the call returns. The step is GPU time, or host time on a CPU. A request is from token ids to the answer in host memory. Its parts overlap, so they do not add up.",
  render(body, redraw) {
    const valid = filteredRows().filter((row) => !row.invalid && row.request_ms !== null);
    if (!valid.length) return false;
    body.append(element("div", {class: "controls"}, batchSelect(valid, redraw)));
    const series = latencySeries(), shown = shownSeries("latency", series);
    const rows = series.filter((one) => shown.has(one.key)).map((one) => [one.label, one.rows.find((row) => row.batch === report.state.batch)])
      .filter(([, row]) => row && row.request_ms !== null).sort((a, b) => a[1].request_ms - b[1].request_ms);
    body.append(seriesButtons("latency", series, redraw));
    const columns = [["path", false], ["packing ms", true], ["copy in ms", true], ["enqueue ms", true], ["step ms", true], ["copy out ms", true], ["request ms", true], ["CUDA graph", false], ["options", false]];
    if (rows.length) {
      const box = plotBox("Parts of a request");
      body.append(box);
      const parts = [["packing", "packing_ms"], ["copy in", "copy_in_ms"], ["enqueue", "enqueue_ms"], ["step", "step_ms"], ["copy out", "copy_out_ms"], ["request", "request_ms"]];
      drawBars(box, rows.map(([name]) => name), parts.map(([name, field]) => ({name, values: rows.map(([, row]) => row[field]),
        texts: rows.map(([, row]) => number(row[field])), records: rows.map(([, row]) => row.record),
        hover: rows.map(([, row]) => rowText(row, `${name} ${number(row[field], 4)} ms`))})).filter((bar) => bar.values.some((value) => value !== null)), {title: "ms"});
    }
    body.append(dataTable("Parts of a request", columns, () => valid.filter((row) => row.batch === report.state.batch).sort((a, b) => a.request_ms - b.request_ms)
      .map((row) => ({record: row.record, cells: [kindOf(row), ...["packing_ms", "copy_in_ms", "enqueue_ms", "step_ms", "copy_out_ms", "request_ms"].map((field) => number(row[field], 4)), row.graph ? "yes" : "no", row.options]}))));
    return true;
  },
};

const layers = {
  id: "layers", title: "Layers",
  hint: () => "Relative error of each marked output against FP32, in the order of the model, on a logarithmic scale. The vertical line is the threshold. Bars above it are hatched.",
  render(body, redraw) {
    const items = report.data.layers.filter((item) => onThisMachine(item.record) && passes(item.record));
    if (!items.length) return false;
    const item = items[report.state.layers] || items[0];
    body.append(element("div", {class: "controls"}, select("Record", items.map((one, index) => [index, one.name]), items.indexOf(item),
      (value) => { report.state.layers = Number(value); redraw(); })));
    const box = plotBox("Relative error by layer");
    body.append(box);
    const points = item.points, above = (value) => value === null || value > item.threshold;
    const texts = points.map(([name, value]) => `${name} ${value === null ? "NaN" : number(value)}${name === item.first ? " (first above)" : ""}`);
    const part = (name, wanted) => ({name, values: points.map(([, value]) => (above(value) === wanted ? value : null)), texts: points.map(() => ""),
      records: points.map(() => item.record), hover: points.map(([output, value]) => `${output}; relative error ${value === null ? "not finite" : number(value, 4)}`)});
    drawBars(box, texts, [part("up to the threshold", false), part("above the threshold", true)],
    {title: "relative error", overlay: true, floor: item.threshold / 100, shapes: [{type: "line", x0: item.threshold, x1: item.threshold, yref: "paper", y0: 0, y1: 1, line: {color: css("--ink"), width: 1.5, dash: "dash"}}]});
    body.append(dataTable("Relative error by layer", [["output", false], ["relative error", true], ["above the threshold", false]],
      () => points.map(([name, value]) => ({record: item.record, best: false, cells: [name, value === null ? "not finite" : number(value, 4), above(value) ? "yes" : ""]}))));
    return true;
  },
};

const kernels = {
  id: "kernels", title: "Kernels",
  hint: () => "Time of the kernels of one forward pass by class, in ms, under a profiler at the base clock. Compare the shares, not the sums, with the latency.",
  render(body) {
    const items = report.data.kernels.filter((item) => onThisMachine(item.record) && passes(item.record));
    if (!items.length) return false;
    const named = items.map((item) => ({...item, entry: report.data.records[item.record]})).map((item) => ({...item,
      name: `${item.entry.model} ${item.entry.backend} ${item.entry.precision} ${item.shape}`, sum: Object.values(item.groups).reduce((sum, [ms]) => sum + ms, 0)}));
    named.sort((a, b) => (a.entry.model + a.shape < b.entry.model + b.shape ? -1 : a.entry.model + a.shape > b.entry.model + b.shape ? 1 : a.sum - b.sum));
    const groups = Object.keys(named[0].groups);
    const box = plotBox("Time of kernels by class");
    body.append(box);
    const share = (item, group) => 100 * item.groups[group][0] / item.sum;
    drawBars(box, named.map((item) => `${item.name}, ${number(item.sum)} ms`), groups.map((group) => ({name: group, values: named.map((item) => share(item, group)),
      texts: named.map((item) => (share(item, group) > (narrow() ? 16 : 7) ? number(item.groups[group][0]) : "")), records: named.map((item) => item.record),
      hover: named.map((item) => `${item.name}; ${group}; ${number(item.groups[group][0], 4)} ms in ${item.groups[group][1]} kernels`)})),
    {title: "share of the sum in %", stacked: true, range: [0, 100]});
    body.append(dataTable("Time of kernels by class in ms", [["profile", false], ["sum ms", true], ...groups.map((group) => [group, true])],
      () => named.map((item) => ({record: item.record, cells: [item.name, number(item.sum, 4), ...groups.map((group) => number(item.groups[group][0], 4))]}))));
    return true;
  },
};

const withoutResult = {
  id: "failures", title: "Cells without a result",
  hint: () => "Cells that a backend does not support, or that failed.",
  render(body) {
    const items = report.data.without_result.filter(({record}) => onThisMachine(record) && passes(record));
    if (!items.length) return false;
    body.append(dataTable("Cells without a result", [["cell", false], ["suite", false], ["reason", false]],
      () => items.map(({record}) => ({record, cells: [report.data.records[record].id, report.data.records[record].suite, report.data.records[record].reason]}))));
    return true;
  },
};
