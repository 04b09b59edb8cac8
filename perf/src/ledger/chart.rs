//! The chart of a ledger through git history: a page of drawings, which need nothing beside them.

use super::table::{Key, Ledger};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 300.0;
/// Left and right end and height of the lines; names of cases stand to their right.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 264.0;

/// Names and revisions that a drawing has room for.
const NAMES: usize = 14;
const REVISIONS: usize = 9;

/// A case that changed by less in all of its history is drawn in grey, without a name.
const STILL: f64 = 0.01;

/// Colours that are told apart on white; later names begin again.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5a00", "#56b4e9", "#000000"];

/// One chart a group: instructions relative to a case's first ledger, one line a case.
pub fn html(history: &[(String, Ledger)]) -> String {
    let mut groups: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    let mut keys: Vec<&Key> = history.iter().flat_map(|(_, l)| l.rows.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let group = key.0.split("::").next().unwrap_or_default().to_owned();
        groups.entry(group).or_default().push(key.clone());
    }
    let mut out = "<!doctype html><meta charset=\"utf-8\"><title>Instruction counts</title>\n<style>\
                   body{font:14px sans-serif;max-width:72em;margin:2em auto}</style>\n\
                   <h1>Instruction counts through history</h1>\n<p>Each line is a case, relative to the \
                   first ledger that has it, on a scale of ratios; lower is fewer instructions. The cases \
                   that changed most are named; grey ones stayed within 1 %. Hover for names.</p>\n"
        .to_owned();
    for (group, keys) in groups {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<h2>{group} ({} cases)</h2>\n{}", keys.len(), chart(history, &group, &keys));
    }
    out
}

/// One case: its ratio to the first ledger that has it, by index of the ledger.
struct Line<'a> {
    key: &'a Key,
    points: Vec<(usize, f64)>,
}

impl<'a> Line<'a> {
    fn new(history: &[(String, Ledger)], key: &'a Key) -> Line<'a> {
        let count = |l: &Ledger| Some(l.rows.get(key)?.instructions.max(1) as f64);
        let counts: Vec<(usize, f64)> =
            history.iter().enumerate().filter_map(|(i, (_, then))| Some((i, count(then)?))).collect();
        let first = counts.first().map_or(1.0, |c| c.1);
        Line { key, points: counts.into_iter().map(|(i, n)| (i, n / first)).collect() }
    }

    fn last(&self) -> f64 {
        self.points.last().map_or(1.0, |p| p.1)
    }

    /// The greatest change there was, in either direction, as a logarithm.
    fn change(&self) -> f64 {
        self.points.iter().fold(0.0, |m: f64, p| m.max(p.1.ln().abs()))
    }
}

fn chart(history: &[(String, Ledger)], group: &str, keys: &[Key]) -> String {
    let mut lines: Vec<Line<'_>> = keys.iter().map(|key| Line::new(history, key)).collect();
    // Those that changed least first: the others are drawn over them.
    lines.sort_by(|a, b| a.change().total_cmp(&b.change()));
    let moved = lines.iter().filter(|line| line.change() > STILL).count();
    let all = || lines.iter().flat_map(|line| &line.points).map(|p| p.1);
    let (low, high) = (all().fold(0.9, f64::min).ln(), all().fold(1.1, f64::max).ln());
    let x = |i: usize| LEFT + (RIGHT - LEFT) * i as f64 / (history.len() - 1).max(1) as f64;
    let y = |r: f64| TOP + (BOTTOM - TOP) * (high - r.ln()) / (high - low);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fafafa\"/>\n"
    );
    let mut text = |x: f64, y: f64, rest: &str, text: &str| {
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\"{rest}>{text}</text>");
    };
    // Rules at ratios that are far enough apart to be read.
    let mut rules: Vec<f64> = vec![1.0];
    for r in [low.exp(), high.exp(), 0.5, 2.0, 0.25, 4.0, 0.7, 1.4, 0.1, 10.0] {
        if r.ln() >= low && r.ln() <= high && rules.iter().all(|o| (y(*o) - y(r)).abs() > 16.0) {
            rules.push(r);
        }
    }
    rules.iter().for_each(|&r| text(6.0, y(r) + 4.0, "", &format!("{r:.2}x")));
    let step = history.len().div_ceil(REVISIONS).max(1);
    for i in (0..history.len()).rev().step_by(step) {
        text(x(i), HEIGHT - 14.0, " text-anchor=\"middle\"", &history[i].0);
    }
    for r in rules {
        let y = y(r);
        let _ =
            writeln!(out, "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
    }

    let named = moved.min(NAMES);
    let first = lines.len() - named;
    for (n, line) in lines.iter().enumerate() {
        let (colour, width) = match n.checked_sub(first) {
            Some(n) => (COLOURS[n % COLOURS.len()], 1.8),
            None if line.change() > STILL => ("#888", 1.2),
            None => ("#bbb", 1.2),
        };
        let points: Vec<String> =
            line.points.iter().map(|&(i, r)| format!("{:.1},{:.1}", x(i), y(r))).collect();
        let ((id, tier), last) = (line.key, line.last());
        let title = format!("<title>{id} at {tier}: {last:.3}x</title>");
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{}\">{title}\
             </polyline>",
            points.join(" "),
        );
        if let Some(&(i, r)) = line.points.last() {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\" fill=\"{colour}\">{title}</circle>",
                x(i),
                y(r)
            );
        }
    }
    // Names from the top in the order of the lines' ends, each at its line or below the name above it.
    let mut names: Vec<(usize, &Line<'_>)> = lines[first..].iter().enumerate().collect();
    names.sort_by(|a, b| b.1.last().total_cmp(&a.1.last()));
    let gap = 17.0;
    let mut free = TOP;
    for (n, (colour, line)) in names.iter().enumerate() {
        let left = (names.len() - n - 1) as f64 * gap;
        let at = y(line.last()).min(BOTTOM - left).max(free);
        free = at + gap;
        let (colour, (id, tier), last) = (COLOURS[colour % COLOURS.len()], line.key, line.last());
        let end = line.points.last().map_or(RIGHT, |p| x(p.0));
        let id = id.strip_prefix(group).and_then(|id| id.strip_prefix("::")).unwrap_or(id);
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"#ccc\" points=\"{:.1},{:.1} {:.1},{at:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{last:.2}x {id} {tier}</text>",
            end + 3.0,
            y(line.last()),
            RIGHT + 22.0,
            RIGHT + 26.0,
            at + 4.0,
        );
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(n: u64) -> Ledger {
        Ledger::parse(&format!("# rustc: 1\ng::a\tavx2\t{n}\t1\t\ng::b\tavx2\t9\t1\t")).unwrap()
    }

    #[test]
    fn the_chart_has_a_line_for_each_case_and_names_what_changed() {
        let history = [("r1".to_owned(), ledger(100)), ("now".to_owned(), ledger(80))];
        let text = html(&history);
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(text.contains("g::a at avx2: 0.800x"), "{text}");
        assert!(text.contains(">0.80x a avx2</text>") && !text.contains("b avx2</text>"), "{text}");
    }
}
