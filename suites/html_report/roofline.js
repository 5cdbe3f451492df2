/* The roofline: operations per second of the rows against their operations per byte, below the ceilings of the machine. */

const roofline = {
  id: "roofline", title: "Roofline",
  hint: () => "Operations per second of passes back to back, against operations per byte of the model's products. A line is the ceiling of a precision: the speed of the memory times the operations per byte, at most the speed of products.",
  render(body, redraw) {
    const {roofs} = report.state.workload, known = (row) => row.tflops > 0 && row.intensity > 0;
    if (!roofs.tflops) return false;
    const all = latencySeries(), shown = shownSeries("latency", all);
    const series = all.map((one) => ({...one, rows: one.rows.filter(known)})).filter((one) => one.rows.length);
    if (!series.length) return false;
    const drawn = series.filter((one) => shown.has(one.key)), styles = stylesOf(all.filter((one) => shown.has(one.key)));
    const value = (row) => `${number(row.tflops)} TFLOP/s; ${number(row.intensity)} operations per byte; ${number(shareOf(row, roofs))}% of the ceiling`;
    const lines = drawn.map((one) => ({label: one.label, style: styles.get(one.key), points: one.rows.map((row) => ({x: row.intensity, y: row.tflops, record: row.record,
      text: rowText(row, value(row))}))}));
    const box = plotBox("TFLOP/s against operations per byte");
    body.append(seriesButtons("latency", all, redraw), box);
    drawLines(box, [...roofLines(roofs, drawn.flatMap((one) => one.rows)), ...lines],
      {xLog: true, yLog: true, xTitle: "operations per byte", yTitle: "TFLOP/s, INT8: TOP/s", height: 460});
    body.append(dataTable("Roofline", [["path", false], ["batch", true], ["TFLOP/s", true], ["% of ceiling", true], ["operations per byte", true], ["roof at this point", true], ["options", false]],
      () => filteredRows().filter(known).map((row) => ({record: row.record, cells: [kindOf(row), row.batch, number(row.tflops, 4), number(shareOf(row, roofs)), number(row.intensity, 4), number(roofAt(row, roofs), 4), row.options]}))));
    return true;
  },
};

/* The roof of a row in TFLOP/s, or null without a ceiling of its precision. GB/s times operations per byte are GFLOP/s. */
function roofAt(row, roofs) {
  const most = roofs.tflops[report.data.records[row.record].precision];
  return most ? Math.min(most, row.intensity * roofs.gb_s / 1000) : null;
}

function shareOf(row, roofs) {
  const most = roofs.tflops[report.data.records[row.record].precision];
  return most ? 100 * row.tflops / most : null;
}

/* One line for each precision of the drawn rows: along the memory, then flat from the ridge on. */
function roofLines(roofs, rows) {
  const used = new Set(rows.map((row) => report.data.records[row.record].precision));
  const precisions = Object.keys(roofs.tflops).filter((name) => used.has(name));
  const ridge = (name) => 1000 * roofs.tflops[name] / roofs.gb_s;
  const places = [...rows.map((row) => row.intensity), ...precisions.map(ridge)];
  const first = Math.min(...places) / 2, last = Math.max(...places) * 2;
  return precisions.map((name) => ({label: `ceiling of ${name}`, style: {color: css("--soft"), symbol: "circle", dash: DASHES[name] || "solid"}, points: [],
    path: [[first, first * roofs.gb_s / 1000], [ridge(name), roofs.tflops[name]], [last, roofs.tflops[name]]]}));
}
