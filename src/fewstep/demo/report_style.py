"""The looks of report.html: one column of quiet type, pictures on black, both colour schemes."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #faf9f7; --card: #ffffff; --ink: #1d1d1f; --soft: #6b6b70; --line: #e3e1dc; --accent: #c2410c;
  --bar: #d6d3cd;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #131316; --card: #1b1b1f; --ink: #ececee; --soft: #9c9ca3; --line: #2d2d33; --accent: #fb923c;
          --bar: #45454d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 10px; text-wrap: balance; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 56px 0 6px; }
p { margin: 0 0 12px; max-width: 74ch; }
.lead { font-size: 18px; color: var(--soft); }
.note { color: var(--soft); font-size: 14px; }
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 20px; margin: 16px 0 8px; }
.panel h3 { font-size: 15px; margin: 0 0 2px; }
.panel .fd { color: var(--soft); font-size: 13px; margin: 0 0 8px; font-variant-numeric: tabular-nums; }
.panel.student h3 { color: var(--accent); }
.sheet { position: relative; background: #000; border-radius: 10px; overflow: hidden; line-height: 0; }
.panel.student .sheet { box-shadow: 0 0 0 2px var(--accent); }
.sheet img { width: 100%; height: auto; image-rendering: pixelated; }
.sheet div { position: absolute; inset: 0; display: grid; grid-template-columns: repeat(7, 1fr); grid-auto-rows: 1fr; }
.sheet i:hover { box-shadow: inset 0 0 0 2px #ffffffb0; }
.scroll { overflow-x: auto; margin: 14px 0; background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 10px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { border-top: 0; font-weight: 500; color: var(--soft); font-size: 13px; }
tr.student td { color: var(--accent); font-weight: 600; }
tr.seed td { color: var(--soft); font-size: 13px; padding-top: 4px; padding-bottom: 4px; border-top: 0; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 8px 16px; align-items: center; margin: 22px 0 8px; }
.bars span { font-size: 14px; }
.bars div { display: flex; align-items: center; gap: 10px; font-size: 14px; font-variant-numeric: tabular-nums; }
.bars div::before { content: ""; height: 16px; width: var(--w); background: var(--bar); border-radius: 3px; }
.bars .student { color: var(--accent); font-weight: 600; }
.bars .student::before { background: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; font-size: 15px; margin: 14px 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 80ch; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 16px; margin: 14px 0; }
.chart { margin: 0; padding: 10px 12px 8px; background: var(--card); border: 1px solid var(--line);
         border-radius: 10px; }
.chart figcaption { display: flex; justify-content: space-between; font-size: 13px; color: var(--soft); }
.chart figcaption b { color: var(--ink); }
.chart svg { width: 100%; max-width: 360px; height: auto; display: block; }
.chart polyline { fill: none; stroke: var(--accent); vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .raw { stroke-width: 1; opacity: .25; } .chart .mean { stroke-width: 2; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto;
      font: 13.5px/1.7 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre b { color: var(--soft); font-weight: 400; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
@media (max-width: 760px) { .panels { grid-template-columns: minmax(0, 1fr); } h1 { font-size: 27px; } }
"""
