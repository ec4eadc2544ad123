"""The looks of an evaluation's report.html: quiet type, pictures on black, both colour schemes, no script."""

CSS = """
:root { color-scheme: light dark; --paper: #faf9f7; --card: #fff; --ink: #1d1d1f; --soft: #6b6b70; --line: #e3e1dc;
        --accent: #c2410c; --good: #15803d; --bad: #b91c1c; --bar: #c9c5bd; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #131316; --card: #1b1b1f; --ink: #ececee; --soft: #9c9ca3; --line: #2d2d33; --accent: #fb923c;
          --good: #4ade80; --bad: #f87171; --bar: #52525b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 32px; line-height: 1.15; letter-spacing: -.02em; margin: 0 0 10px; text-wrap: balance; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 56px 0 6px; }
h3 { font-size: 15px; margin: 26px 0 6px; }
p { margin: 0 0 12px; max-width: 80ch; }
.lead { font-size: 18px; color: var(--soft); } .note { color: var(--soft); font-size: 14px; }
.warning { border-left: 3px solid var(--bad); padding-left: 12px; }
.scroll { overflow-x: auto; margin: 14px 0; background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 9px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line);
         vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { border-top: 0; font-weight: 500; color: var(--soft); font-size: 13px; }
td small { display: block; color: var(--soft); font-size: 12px; }
td small.better { color: var(--good); } td small.worse { color: var(--bad); }
tr.student td:first-child { color: var(--accent); font-weight: 600; }
/* auto-fill: one chart stays as wide as one of many; auto-fit would make its bars and letters as large as the page */
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 16px; margin: 14px 0; }
.chart { margin: 0; padding: 10px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.chart figcaption { font-size: 13px; color: var(--soft); } .chart figcaption b { color: var(--ink); }
.chart svg { width: 100%; max-width: 400px; height: auto; display: block; }
.chart rect { fill: var(--bar); } .chart rect.student { fill: var(--accent); }
.chart line { stroke: var(--ink); stroke-width: 1.5; }
.chart text { fill: var(--ink); font-size: 11px; } .chart text.value { fill: var(--soft); }
.cases { display: flex; flex-wrap: wrap; gap: 18px 34px; margin: 14px 0; }
.case { display: grid; gap: 6px 8px; max-width: 100%; align-items: start; align-content: start; }
.case .prompt { grid-column: 1 / -1; font-size: 14px; border-top: 1px solid var(--line); padding-top: 8px; }
.case .prompt b { font-weight: 600; } .case .prompt span { color: var(--soft); }
.tile { margin: 0; } .tile img { width: 100%; display: block; border-radius: 8px; background: #000; }
.tile img.small { image-rendering: pixelated; }
.tile figcaption { font-size: 12px; color: var(--soft); margin-top: 3px; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; margin: 10px 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 90ch; overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
"""
