/* Series of latency rows, their buttons, and plots with a line for each series. */

const narrow = () => byId("main").clientWidth < 700;

/* Series of the rows that pass the filters, the fastest first. At each batch a series has its fastest row. */
function latencySeries() {
  const rows = filteredRows().filter((row) => !row.invalid);
  const lowest = new Map();
  for (const row of rows) lowest.set(row.batch, Math.min(lowest.get(row.batch) ?? Infinity, row.time[0]));
  const groups = new Map();
  for (const row of rows) {
    const {backend, precision} = report.data.records[row.record];
    const kind = `${backend} ${precision}`;
    const key = report.state.lines === "kinds" ? kind : `${kind}; ${row.options}`;
    if (!groups.has(key)) groups.set(key, {key, kind, backend, precision, rows: new Map(), options: row.options});
    const best = groups.get(key).rows;
    if (!best.has(row.batch) || row.time[0] < best.get(row.batch).time[0]) best.set(row.batch, row);
  }
  const series = [...groups.values()].map((group) => {
    const own = [...group.rows.values()].sort((a, b) => a.batch - b.batch);
    const losses = own.map((row) => Math.log(row.time[0] / lowest.get(row.batch)));
    return {...group, rows: own, score: losses.reduce((sum, loss) => sum + loss, 0) / losses.length};
  });
  series.sort((a, b) => a.score - b.score || (a.key < b.key ? -1 : 1));
  series.forEach((one, index) => {
    one.label = report.state.lines === "kinds" ? one.kind : `${one.kind} [${index + 1}]`;
    one.text = report.state.lines === "kinds" ? one.kind : `[${index + 1}] ${one.key}`;
    if (report.state.lines !== "kinds") one.backend = undefined;
  });
  return series;
}

/* The series at the start: the baseline, the best of each backend, then the next best ones. */
function firstSeries(series) {
  const most = report.data.styles.most;
  const keys = series.filter((one) => one.kind === report.data.baseline).slice(0, 1);
  for (const one of series) if (one.backend !== undefined && !keys.some((key) => key.backend === one.backend)) keys.push(one);
  for (const one of series) if (!keys.includes(one)) keys.push(one);
  return new Set(keys.slice(0, most).map((one) => one.key));
}

/* The keys of the series that a section draws. All sections with the same `group` share them. */
function shownSeries(group, series, first = firstSeries) {
  const {shown} = report.state;
  if (!shown[group]) shown[group] = first(series);
  return shown[group];
}

/* Buttons that add and remove series. At most `most` are drawn at once. */
function seriesButtons(group, series, redraw, first = firstSeries) {
  const shown = shownSeries(group, series, first);
  const message = element("p", {class: "message", role: "status"});
  const change = (key) => {
    if (shown.has(key)) shown.delete(key);
    else if (shown.size >= report.data.styles.most) {
      message.textContent = `${report.data.styles.most} series are drawn. Remove one first.`;
      return;
    } else shown.add(key);
    redraw();
  };
  const styles = stylesOf(series.filter((one) => shown.has(one.key)));
  const button = (one) => element("button",
    {type: "button", "aria-pressed": String(shown.has(one.key)), onclick: () => change(one.key)},
    shown.has(one.key) ? swatch(styles.get(one.key)) : null, one.text);
  const drawn = series.filter((one) => shown.has(one.key)).map(button);
  const rest = series.filter((one) => !shown.has(one.key)).map(button);
  const few = rest.length <= 4;
  const more = element("details", {open: report.state.open?.[group], ontoggle: (event) => { (report.state.open ??= {})[group] = event.target.open; }},
    element("summary", {}, `${rest.length} more series`), element("div", {class: "choices"}, ...(few ? [] : rest)));
  return element("div", {class: "series"}, element("div", {class: "choices"}, ...drawn, ...(few ? rest : [])), few ? null : more, message);
}

function stylesOf(drawn) {
  return new Map(drawn.map((one, index) => [one.key, styleOf(one, index)]));
}

function wrapLabel(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length + 1 > width) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines;
}

/* Draw lines. A line is {label, style, points: [{x, y, low, high, record, text}], path: [[x, y]]}; a path is optional. */
function drawLines(box, lines, axes) {
  const width = box.clientWidth, small = narrow();
  const labels = lines.map((line) => wrapLabel(small ? line.label : line.long || line.label, small ? 18 : 40));
  const letters = Math.max(4, ...labels.flat().map((text) => text.length));
  const margin = {l: small ? 50 : 64, r: Math.min(letters * (small ? 5.9 : 6.6) + 38, width * 0.42), t: 14, b: 46};
  const gap = (small ? 13 : 14) * Math.max(1, ...labels.map((text) => text.length)) + 1;
  const height = Math.max(axes.height || 380, gap * lines.length + margin.t + margin.b);
  const points = lines.flatMap((line) => line.points);
  const xValues = points.map((point) => point.x).concat(lines.flatMap((line) => (line.path || []).map(([x]) => x)));
  const yValues = points.flatMap((point) => [point.y, point.low, point.high]).filter((value) => value !== undefined && value !== null);
  const xRange = axes.xRange || range(xValues, axes.xLog, 0.04), yRange = axes.yRange || range(yValues, axes.yLog);
  const place = (value, log, ends) => ((log ? Math.log10(value) : value) - ends[0]) / (ends[1] - ends[0]);
  const plotHeight = height - margin.t - margin.b, plotWidth = width - margin.l - margin.r;
  const ends = lines.map((line) => {
    const all = line.path || line.points.map((point) => [point.x, point.y]);
    const inside = all.filter(([, y]) => place(y, axes.yLog, yRange) <= 1.0001 && place(y, axes.yLog, yRange) >= -0.0001);
    return inside.length ? {at: inside.at(-1), cut: inside.at(-1) !== all.at(-1)} : null;
  });
  const usual = ends.map((end, index) => (end && !end.cut ? index : null)).filter((index) => index !== null);
  const heights = usual.map((index) => (1 - place(ends[index].at[1], axes.yLog, yRange)) * plotHeight);
  const spreadHeights = spread(heights, gap, 4, plotHeight - 4);
  const annotations = usual.map((index, order) => label(labels[index], lines[index], ends[index].at, {
    dx: (1 - place(ends[index].at[0], axes.xLog, xRange)) * plotWidth + 14, dy: spreadHeights[order] - heights[order]}, axes));
  ends.forEach((end, index) => {
    if (end?.cut) annotations.push({...label([`${lines[index].label}: above the scale`], lines[index], end.at, {dx: 24, dy: 8}, axes), bgcolor: css("--ground")});
  });
  const grid = axes.yLog ? ticks(10 ** yRange[0], 10 ** yRange[1]) : null;
  draw(box, lines.flatMap(tracesOf), layout(width, height, {
    margin, annotations: annotations.map((one) => ({...one, font: {size: small ? 10 : 12, color: css("--ink")}})),
    xaxis: {type: axes.xLog ? "log" : "linear", range: xRange, title: {text: axes.xTitle, standoff: 8},
      ...(axes.xTicks ? {tickmode: "array", tickvals: axes.xTicks, ticktext: axes.xTicks.map(String)} : {})},
    yaxis: {type: axes.yLog ? "log" : "linear", range: yRange, title: {text: axes.yTitle, standoff: 4},
      ...(grid ? {tickmode: "array", tickvals: grid, ticktext: grid.map((value) => number(value))} : {})},
    shapes: axes.shapes || [],
  }));
}

function label(text, line, [x, y], {dx, dy}, axes) {
  const mark = `<span style="color:${line.style.color}">${GLYPHS[line.style.symbol]}</span> `;
  return {x: axes.xLog ? Math.log10(x) : x, y: axes.yLog ? Math.log10(y) : y, ax: dx, ay: dy, text: mark + text.map(plain).join("<br>"),
    showarrow: true, arrowhead: 0, arrowwidth: 0.8, arrowcolor: css("--soft"), xanchor: "left", align: "left", standoff: 5,
    borderpad: 0};
}

function tracesOf(line) {
  const {style, points, path} = line;
  const marks = {
    type: "scatter", mode: path ? "markers" : "lines+markers", x: points.map((point) => point.x), y: points.map((point) => point.y),
    line: {color: style.color, dash: style.dash, width: 2}, cliponaxis: true,
    marker: {color: style.color, symbol: style.symbol, size: 10, line: {color: css("--ground"), width: 1}},
    text: points.map((point) => plain(point.text).replace(/; /g, "<br>")), hovertemplate: "%{text}<extra></extra>",
    records: points.map((point) => [point.record, point.text]),
  };
  if (points.some((point) => point.low !== undefined && point.low !== null)) {
    marks.error_y = {type: "data", symmetric: false, thickness: 1.2, width: 4, color: style.color,
      array: points.map((point) => (point.high ?? point.y) - point.y), arrayminus: points.map((point) => point.y - (point.low ?? point.y))};
  }
  if (!path) return [marks];
  return [{type: "scatter", mode: "lines", x: path.map(([x]) => x), y: path.map(([, y]) => y), hoverinfo: "skip",
    line: {color: style.color, dash: style.dash, width: 2}}, marks];
}

/* A section with a line plot of one figure against the batch size. `figure` returns [value, low, high] of a row. */
function metricSection({id, title, hint, unit: named, figure, log = true, relative = false}) {
  return {id, title, hint, render(body, redraw) {
    const measured = (row) => figure(row)[0] !== null && figure(row)[0] !== undefined && figure(row)[0] > 0;
    const series = latencySeries().map((one) => ({...one, rows: one.rows.filter(measured)})).filter((one) => one.rows.length);
    if (!series.length) return false;
    const shown = shownSeries("latency", latencySeries());
    const drawn = series.filter((one) => shown.has(one.key));
    const styles = stylesOf(latencySeries().filter((one) => shown.has(one.key)));
    const batches = unique(series.flatMap((one) => one.rows.map((row) => row.batch))).sort((a, b) => a - b);
    const unit = named || report.data.unit;
    const axes = {xLog: true, yLog: log, xTitle: "batch size", yTitle: unit, xTicks: batches,
      xRange: batches.length > 1 ? undefined : [Math.log10(batches[0]) - 0.3, Math.log10(batches[0]) + 0.3]};
    const lines = drawn.map((one) => ({label: one.label, style: styles.get(one.key), points: one.rows.map((row) => {
      const [y, low, high] = figure(row);
      return {x: row.batch, y, low, high, record: row.record, text: rowText(row, `${number(y, 4)} ${unit}`)};
    })}));
    const box = plotBox(`${title}: ${unit} against batch size`), boxes = element("div", {class: "plots"}, box);
    body.append(seriesButtons("latency", latencySeries(), redraw), boxes);
    drawLines(box, lines, axes);
    if (relative && lines.length > 1) drawRelative(boxes, lines, axes);
    body.append(rowsTable(title, unit, figure));
    return true;
  }};
}

/* The same lines, divided by the lowest time at each batch size: small differences are visible. */
function drawRelative(boxes, lines, axes) {
  const lowest = new Map();
  for (const {points} of lines) for (const {x, y} of points) lowest.set(x, Math.min(lowest.get(x) ?? Infinity, y));
  const scaled = lines.map((line) => ({...line, points: line.points.map((point) => {
    const base = lowest.get(point.x);
    return {...point, y: point.y / base, low: point.low / base, high: point.high / base,
      text: `${point.text}; ${number(point.y / base)} times the lowest`};
  })}));
  const box = plotBox("Time divided by the lowest time at each batch size");
  boxes.append(element("h3", {}, "Divided by the lowest time that is drawn at the same batch size"), box);
  drawLines(box, scaled, {...axes, yTitle: "times the lowest", height: 340});
}

function rowText(row, value) {
  const {backend, precision} = report.data.records[row.record];
  return [`${backend} ${precision}`, `batch ${row.batch}, ${row.sequence} tokens`, value, row.graph ? "CUDA graph" : "",
    row.options].filter(Boolean).join("; ");
}

/* The figures of all rows that pass the filters, as a table that is made when it is opened. */
function rowsTable(title, unit, figure) {
  const rows = filteredRows().filter((row) => figure(row)[0] !== null && figure(row)[0] !== undefined);
  const columns = [["path", false], ["batch", true], [unit, true], ["interval", true], ["CUDA graph", false], ["options", false], ["remarks", false]];
  const lowest = new Set(report.state.workload.answers.flatMap((answer) => answer.winners).map((index) => report.state.workload.rows[index]));
  return dataTable(title, columns, () => rows.slice().sort((a, b) => a.batch - b.batch || a.time[0] - b.time[0]).map((row) => {
    const [value, low, high] = figure(row);
    const {backend, precision} = report.data.records[row.record];
    const interval = low === undefined || low === null ? "" : `${number(low, 4)} to ${number(high, 4)}`;
    return {record: row.record, best: lowest.has(row), cells: [`${backend} ${precision}`, row.batch, number(value, 4), interval,
      row.graph ? "yes" : "no", row.options, row.excluded || (row.fastest ? "fastest" : "")]};
  }));
}

function dataTable(title, columns, rows) {
  const details = element("details", {ontoggle: () => {
    if (details.open && details.children.length === 1) details.append(table(title, columns, rows()));
  }}, element("summary", {}, "Figures as a table"));
  return details;
}
