/* Costs of changes of shape: lines against the share of changes, and heat maps of each pair of shapes. */

const SHARES = [0, 0.0003, 0.001, 0.002, 0.004, 0.007, ...Array.from({length: 100}, (_, index) => (index + 1) / 100)];

/* Strategies of a group that pass the filters, the cheapest at a share of one half first. */
function strategySeries(group) {
  return group.strategies.map((strategy, index) => {
    const {backend, precision} = report.data.records[strategy.record];
    const number = `[${index + 1}]`;
    return {...strategy, key: String(index), text: `${number} ${precision}, ${strategy.label}`, label: `${backend} ${precision} ${number}`, long: `${precision}, ${strategy.label} ${number}`};
  }).filter((strategy) => passes(strategy.record));
}

function firstStrategies(series) {
  const first = series.filter((one) => one.first), steep = first.filter((one) => one.steep).slice(0, 1);
  const backends = first.filter((one, index) => first.findIndex((other) => report.data.records[other.record].backend === report.data.records[one.record].backend) === index);
  return new Set(unique([...steep, ...backends, ...first]).slice(0, report.data.styles.most).map((one) => one.key));
}

const switching = {
  id: "switching", title: "Switching between shapes",
  hint: () => "Time of a request by the share of requests that change the shape. Lines are predicted from single changes; markers are replayed requests.",
  render(body, redraw) {
    const groups = report.data.switching.filter((group) => group.machine === report.state.machine);
    if (!groups.length) return false;
    const group = groups[report.state.switching] || groups[0];
    const series = strategySeries(group), key = `switching ${report.data.switching.indexOf(group)}`;
    if (!series.length) return false;
    if (groups.length > 1) {
      body.append(element("div", {class: "controls"}, select("Requests", groups.map((one, index) => [index, one.name]), groups.indexOf(group),
        (value) => { report.state.switching = Number(value); redraw(); })));
    }
    body.append(element("p", {class: "hint"}, group.name), seriesButtons(key, series, redraw, firstStrategies));
    const shown = shownSeries(key, series, firstStrategies), drawn = series.filter((one) => shown.has(one.key));
    drawCosts(body, drawn, stylesOf(drawn));
    body.append(dataTable("Cost of switching", [["strategy", false], ["ms without changes", true], ["ms if every request changes", true], ["replays: share and ms", false]],
      () => series.map((one) => ({record: one.record, cells: [one.text, ...one.ends.map((value) => number(value, 4)), one.replays.map(([share, ms]) => `${share}: ${number(ms, 4)}`).join("; ")]}))));
    drawHeatMap(body, series, redraw);
    return true;
  },
};

function drawCosts(body, drawn, styles) {
  if (!drawn.length) return;
  const at = ({ends}, share) => ends[0] + share * (ends[1] - ends[0]);
  const lines = drawn.map((one) => ({label: one.label, long: one.long, style: styles.get(one.key), path: SHARES.map((share) => [share, at(one, share)]),
    points: one.replays.map(([share, ms]) => ({x: share, y: ms, record: one.record, text: `${one.text}; share of changes ${share}; replayed: ${number(ms, 4)} ms`}))}));
  const axes = {xTitle: "share of requests that change the shape", yTitle: "ms per request", xRange: [-0.02, 1.02], xTicks: [0, 0.2, 0.4, 0.6, 0.8, 1]};
  const flat = drawn.filter((one) => !one.steep), boxes = element("div", {class: "plots"});
  body.append(boxes);
  const both = flat.length && flat.length < drawn.length;
  const box = plotBox("Time of a request by the share of changes");
  boxes.append(box);
  const values = (flat.length ? flat : drawn).flatMap((one) => one.ends);
  if (flat.length) drawLines(box, lines, {...axes, yRange: range(values, false, 0.1), height: 400});
  else drawLines(box, lines, {...axes, yLog: true, height: 400});
  if (both) {
    const second = plotBox("The same on a logarithmic scale");
    boxes.append(element("h3", {}, "The same on a logarithmic scale, with strategies that changes make much slower"), second);
    drawLines(second, lines.map((line) => ({...line, long: undefined})), {...axes, yLog: true, height: 320, yRange: range(lines.flatMap((line) => line.path.map(([, y]) => y)), true)});
  }
}

function drawHeatMap(body, series, redraw) {
  const one = series.find((strategy) => strategy.key === report.state.heat) || series[0];
  body.append(element("h3", {}, "Extra cost of each change of shape"),
    element("p", {class: "hint"}, "Median time of a request after a change, beyond the third request of the same shape. Rows are the shape before, columns the shape after."),
    element("div", {class: "controls"}, select("Strategy", series.map((strategy) => [strategy.key, strategy.text]), one.key, (value) => { report.state.heat = value; redraw(); })));
  const box = plotBox("Extra cost of each change of shape");
  body.append(box);
  const width = box.clientWidth, small = narrow(), side = Math.min(width, 620);
  const microseconds = (value) => (value === null ? "" : number(value, 3));
  const text = one.extra_us.map((line, row) => line.map((value, column) => `${one.shapes[row]} to ${one.shapes[column]}; ${microseconds(value)} µs extra; ${one.text}`));
  const values = one.extra_us.flat().filter((value) => value !== null), low = Math.min(...values), high = Math.max(...values);
  const shade = (value) => (value - low) / (high - low || 1);
  draw(box, [{type: "heatmap", x: one.shapes, y: one.shapes, z: one.extra_us, colorscale: "Cividis", hovertext: text.map((line) => line.map((cell) => plain(cell).replace(/; /g, "<br>"))),
    hovertemplate: "%{hovertext}<extra></extra>", xgap: 2, ygap: 2, records: text.map((line) => line.map((cell) => [one.record, cell])), showscale: !small,
    colorbar: {title: {text: "µs"}, thickness: 14, outlinewidth: 0}}],
  layout(side, side * 0.72, {margin: {l: small ? 52 : 70, r: small ? 6 : 70, t: 10, b: 50},
    annotations: one.extra_us.flatMap((line, row) => line.map((value, column) => ({x: column, y: row, text: microseconds(value), showarrow: false,
      font: {size: small ? 9 : 12, color: value !== null && shade(value) > 0.55 ? "#000000" : "#ffffff"}}))),
    xaxis: {type: "category", title: {text: "shape after", standoff: 6}, tickfont: {size: small ? 9 : 12}}, yaxis: {type: "category", autorange: "reversed", title: {text: "shape before", standoff: 2}, tickfont: {size: small ? 9 : 12}}}));
  const rows = () => one.shapes.flatMap((before, row) => one.shapes.map((after, column) => ({record: one.record, cells: [before, after, microseconds(one.extra_us[row][column])]})));
  body.append(dataTable("Extra cost of each change of shape", [["before", false], ["after", false], ["extra µs", true]], rows));
}
