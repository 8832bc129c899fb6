//! How the page looks: one style sheet, in light and dark.

/// How many colours there are for participants.
pub const COLOURS: usize = 8;

/// The colours keep apart for those who see red and green alike, and stand out from both
/// backgrounds.
pub const SHEET: &str = "
:root{color-scheme:light dark;--back:#fbfbfa;--card:#ffffff;--text:#1c2024;--soft:#5c6670;--rule:#dfe3e6;--good:#0a7a4b;--bad:#b3361b;
--c0:#1668c7;--c1:#d9730d;--c2:#0f8f6b;--c3:#9a4fc4;--c4:#b58a00;--c5:#c2417c;--c6:#2a8fa8;--c7:#7a6a58}
@media (prefers-color-scheme:dark){:root{--back:#14171a;--card:#1c2125;--text:#e6e9ec;--soft:#9aa5af;--rule:#343b42;--good:#4cc38a;--bad:#f0795b;
--c0:#6aaefc;--c1:#f5a04b;--c2:#4fcba4;--c3:#c792ea;--c4:#e2c044;--c5:#f08ab8;--c6:#67c7dd;--c7:#b9a892}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 1rem;letter-spacing:-.02em}
h2{font-size:1.25rem;margin:0 0 .25rem}
h3{font-size:1rem;margin:0 0 .5rem}
section{background:var(--card);border:1px solid var(--rule);border-radius:.75rem;padding:1.25rem 1.5rem;margin:1.25rem 0}
.hint{color:var(--soft);font-size:.875rem;margin:0 0 1rem;max-width:46rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:.5rem 1.5rem;margin:0}
dt{color:var(--soft);font-size:.75rem;text-transform:uppercase;letter-spacing:.05em}
dd{margin:0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
.card{border:1px solid var(--rule);border-radius:.5rem;padding:1rem}
.card ul{list-style:none;margin:0;padding:0}
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
.open{color:var(--soft);font-style:italic}
.legend{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:0;padding:.6rem 0;background:var(--back);border-bottom:1px solid var(--rule)}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.2rem;margin-right:.4rem;background:var(--p)}
svg{display:block;width:100%;height:auto;margin:.25rem 0 .75rem;overflow:visible}
svg text{fill:var(--text);font-size:13px}
svg .soft{fill:var(--soft)}
svg .title{font-weight:600}
svg .rule{stroke:var(--rule);stroke-width:1}
svg .bar{fill:var(--p);fill-opacity:.55}
svg .span{stroke:var(--text);stroke-width:1.5}
svg .dot{fill:var(--p);stroke:var(--card);stroke-width:1}
svg .hollow{fill:var(--card);stroke:var(--p);stroke-width:1.5}
svg .line{fill:none;stroke:var(--p);stroke-width:2;stroke-linejoin:round}
svg .band{fill:var(--p);fill-opacity:.15}
.c0{--p:var(--c0)}.c1{--p:var(--c1)}.c2{--p:var(--c2)}.c3{--p:var(--c3)}.c4{--p:var(--c4)}.c5{--p:var(--c5)}.c6{--p:var(--c6)}.c7{--p:var(--c7)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem;width:100%}
th,td{padding:.4rem .6rem;border-bottom:1px solid var(--rule);text-align:right;vertical-align:top;font-variant-numeric:tabular-nums}
th[scope=row],tr th:first-child{text-align:left;font-weight:500}
td.unit{color:var(--soft);text-align:left;white-space:nowrap}
small{display:block;color:var(--soft);white-space:nowrap}
@media print{.legend{position:static}section{break-inside:avoid}}
";
