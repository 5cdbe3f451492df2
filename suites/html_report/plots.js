/* Parts of all plots: colours, sizes, labels at lines, points that are chosen with the pointer or with arrow keys. */

const DASHES = {fp32: "solid", fp16: "dash", bf16: "dashdot", int8: "dot", fp8: "longdashdot", tf32: "longdash"};
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
const GLYPHS = {circle: "\u25cf", square: "\u25a0", "triangle-up": "\u25b2", diamond: "\u25c6", "triangle-down": "\u25bc", cross: "\u271a", x: "\u2716", star: "\u2605"};
const DASH_CYCLE = ["solid", "dash", "dot", "dashdot", "longdash"];
const PATTERNS = ["", "/", ".", "x", "-", "|"];

const dark = () => document.documentElement.dataset.theme === "dark";
const palette = () => report.data.styles[dark() ? "dark" : "light"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/* Styles of several series. A backend has the same colour and marker in all plots; a precision has the same dashes. */
function styleOf(series, index) {
  if (series.backend === undefined) {
    return {color: palette()[index % palette().length], symbol: MARKERS[index % MARKERS.length],
      dash: DASH_CYCLE[index % DASH_CYCLE.length]};
  }
  const backends = unique(report.data.records.map((entry) => entry.backend)).sort();
  const place = backends.indexOf(series.backend);
  return {color: palette()[place % palette().length], symbol: MARKERS[place % MARKERS.length],
    dash: DASHES[series.precision] || "longdashdot"};
}

function layout(width, height, more) {
  const axis = {gridcolor: css("--line"), linecolor: css("--soft"), zeroline: false, automargin: false, fixedrange: true,
    ticks: "outside", tickcolor: css("--line")};
  return {
    width, height, paper_bgcolor: css("--ground"), plot_bgcolor: css("--ground"), showlegend: false, dragmode: false,
    font: {color: css("--ink"), size: 12, family: "system-ui, sans-serif"}, hovermode: "closest",
    hoverlabel: {bgcolor: css("--panel"), bordercolor: css("--ink"), font: {color: css("--ink")}, align: "left"},
    ...more, xaxis: {...axis, ...more.xaxis}, yaxis: {...axis, ...more.yaxis},
  };
}

/* Round values for the ticks of a logarithmic axis between two positive values. */
function ticks(low, high, most = 7) {
  const steps = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9]];
  const fine = Array.from({length: 90}, (_, index) => Number((1 + index / 10).toFixed(1)));
  let best = [];
  for (const step of [...steps, fine]) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)); power++) {
      values.push(...step.map((value) => Number((value * 10 ** power).toPrecision(3))));
    }
    const inside = values.filter((value) => value >= low && value <= high);
    if (inside.length > most) break;
    best = inside;
  }
  return best.length > 1 ? best : [Number(low.toPrecision(3)), Number(high.toPrecision(3))];
}

/* The range of an axis with a margin. On a logarithmic axis the ends are logarithms. */
function range(values, log, margin = 0.06) {
  const numbers = values.filter((value) => value !== null && Number.isFinite(value) && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
  if (!numbers.length) return log ? [0, 1] : [0, 1];
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const space = (high - low) * margin || (log ? 0.15 : Math.abs(high) * 0.1 || 1);
  return [low - space, high + space];
}

/* Positions at least `gap` apart between `low` and `high`, near the given ones and in their order. */
function spread(positions, gap, low, high) {
  const order = positions.map((_, index) => index).sort((a, b) => positions[a] - positions[b]);
  const space = Math.min(gap, (high - low) / Math.max(order.length - 1, 1));
  const groups = [];
  for (const index of order) {
    let members = [positions[index]], start = positions[index];
    while (groups.length && groups.at(-1).start + groups.at(-1).members.length * space > start) {
      members = groups.pop().members.concat(members);
      start = members.reduce((sum, value, place) => sum + value - place * space, 0) / members.length;
      start = Math.min(Math.max(start, low), high - (members.length - 1) * space);
    }
    groups.push({members, start: Math.min(Math.max(start, low), high - (members.length - 1) * space)});
  }
  const placed = groups.flatMap(({members, start}) => members.map((_, place) => start + place * space));
  for (let index = 1; index < placed.length; index++) placed[index] = Math.max(placed[index], placed[index - 1] + space);
  for (let index = placed.length - 1; index >= 0; index--) {
    placed[index] = Math.min(placed[index], index + 1 < placed.length ? placed[index + 1] - space : high);
  }
  const result = [];
  order.forEach((index, place) => { result[index] = placed[place]; });
  return result;
}

/* Draw a plot. Traces have `records`: for each point [record, text]. The element keeps one tab stop. */
function draw(box, traces, wanted) {
  const config = {displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false, staticPlot: false};
  Plotly.react(box, traces, wanted, config);
  if (box.dataset.ready) return;
  box.dataset.ready = "yes";
  box.on("plotly_click", (event) => choosePoint(box, event.points[0].curveNumber, pointOf(event.points[0])));
  box.addEventListener("keydown", (event) => moveBetweenPoints(box, event));
}

const pointOf = (point) => (Array.isArray(point.pointNumber) ? point.pointNumber : point.pointNumber ?? point.pointIndex);

function linked(trace, index) {
  const records = trace.records;
  if (!records) return undefined;
  return Array.isArray(index) ? records[index[0]]?.[index[1]] : records[index];
}

function choosePoint(box, curve, index) {
  const target = linked(box.data[curve], index);
  if (target) showRecord(...target);
}

/* Left and right move from point to point, up and down between series. Enter shows the command. */
function moveBetweenPoints(box, event) {
  const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Enter: [0, 0]};
  if (!steps[event.key]) return;
  event.preventDefault();
  const flat = (records) => records.flatMap((item, row) => (Array.isArray(item?.[0]) ? item.map((one, column) => [one, [row, column]]) : [[item, row]]));
  const curves = box.data.map((trace, curve) => [curve, trace.records ? flat(trace.records).filter(([item]) => item) : []]).filter(([, points]) => points.length);
  if (!curves.length) return;
  const last = box.chosen || {curve: 0, point: event.key === "Enter" ? 0 : -1};
  const [series, step] = steps[event.key];
  let curve = (last.curve + series + curves.length) % curves.length, point = last.point < 0 ? 0 : last.point + step;
  if (step && (point < 0 || point >= curves[curve][1].length)) {
    curve = (curve + step + curves.length) % curves.length;
    point = step > 0 ? 0 : curves[curve][1].length - 1;
  }
  const [number, points] = curves[curve];
  box.chosen = {curve, point: Math.min(Math.max(point, 0), points.length - 1)};
  const [target, place] = points[box.chosen.point];
  if (!Array.isArray(place)) Plotly.Fx.hover(box, [{curveNumber: number, pointNumber: place}]);
  showRecord(...target);
}

/* A plot element that takes the focus. */
function plotBox(label) {
  return element("div", {class: "plot", tabindex: 0, role: "group",
    "aria-label": `${label}. Arrow keys move between points and show their commands. The table below has the same figures.`});
}

/* The sample of a series in its button: a line with its dashes and its marker. */
function swatch(style) {
  const dashes = {solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2", longdash: "9 3", longdashdot: "9 2 2 2"}[style.dash];
  const shapes = {circle: "M14 2a4 4 0 1 0 .01 0", square: "M10 2h8v8h-8z", "triangle-up": "M14 1l5 9h-10z",
    diamond: "M14 0l5 6l-5 6l-5-6z", "triangle-down": "M14 11l5-9h-10z", cross: "M12 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    x: "M10 1l4 3l4-3l1 1l-3 4l3 4l-1 1l-4-3l-4 3l-1-1l3-4l-3-4z", star: "M14 0l2 4h4l-3 3l1 5l-4-3l-4 3l1-5l-3-3h4z"};
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const add = (name, attributes) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    svg.append(part);
  };
  svg.setAttribute("width", "28");
  svg.setAttribute("height", "12");
  svg.setAttribute("aria-hidden", "true");
  add("path", {d: "M0 6h28", stroke: style.color, "stroke-width": 2, "stroke-dasharray": dashes});
  add("path", {d: shapes[style.symbol], fill: style.color});
  return svg;
}
