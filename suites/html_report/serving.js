/* Requests under load: latency and batch size against the load, one line for each strategy. */

/* Strategies of a group that pass the filters, those of the highest loads first. */
function servingSeries(group) {
  return group.strategies.map((strategy, index) => {
    const {backend, precision} = report.data.records[strategy.record];
    return {...strategy, key: String(index), text: `[${index + 1}] ${strategy.label}`, label: `${backend} ${precision} [${index + 1}]`, long: `${strategy.label} [${index + 1}]`};
  }).filter((strategy) => passes(strategy.record));
}

function firstServing(series) {
  const backends = series.filter((one, index) => series.findIndex((other) => report.data.records[other.record].backend === report.data.records[one.record].backend) === index);
  return new Set(unique([...backends, ...series]).slice(0, report.data.styles.most).map((one) => one.key));
}

const serving = {
  id: "serving", title: "Requests under load",
  hint: () => "Latency from the scheduled arrival of a request to its answer, and requests of a batch, against the offered load. Loads that a server does not keep up with are left out.",
  render(body, redraw) {
    const groups = report.data.serving.filter((group) => group.machine === report.state.machine);
    if (!groups.length) return false;
    const group = groups[report.state.serving] || groups[0];
    const series = servingSeries(group), key = `serving ${report.data.serving.indexOf(group)}`;
    if (!series.length) return false;
    if (groups.length > 1) {
      body.append(element("div", {class: "controls"}, select("Requests", groups.map((one, index) => [index, one.name]), groups.indexOf(group),
        (value) => { report.state.serving = Number(value); redraw(); })));
    }
    body.append(element("p", {class: "hint"}, group.name), seriesButtons(key, series, redraw, firstServing));
    const shown = shownSeries(key, series, firstServing), drawn = series.filter((one) => shown.has(one.key)), styles = stylesOf(drawn);
    const boxes = element("div", {class: "plots"});
    body.append(boxes);
    const plotted = (title, yTitle, value) => {
      const lines = drawn.map((one) => ({label: one.label, long: one.long, style: styles.get(one.key), points: one.points.filter((point) => value(point) > 0)
        .map((point) => ({x: point[0], y: value(point), record: one.record, text: `${one.text}; ${number(point[0], 4)} requests/s; ${number(value(point), 4)} ${yTitle}`}))})).filter((line) => line.points.length);
      if (!lines.length) return;
      const box = plotBox(title);
      boxes.append(element("h3", {}, title), box);
      drawLines(box, lines, {xLog: true, yLog: true, xTitle: "load, requests per second", yTitle, height: 380});
    };
    plotted("p99 of the latency against the load", "ms", (point) => point[2]);
    plotted("Batch size against the load", "requests of a batch", (point) => point[3]);
    body.append(dataTable("Requests under load", [["strategy", false], ["requests/s", true], ["p50 ms", true], ["p99 ms", true], ["batch", true]],
      () => series.flatMap((one) => one.points.map((point) => ({record: one.record, cells: [one.text, number(point[0], 4), number(point[1], 4), point[2] === null ? "" : number(point[2], 4), number(point[3], 3)]})))));
    return true;
  },
};
