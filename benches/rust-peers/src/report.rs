//! What was measured, as a record, as tables, and against the goals.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::case::{Case, Device};
use crate::contender::Library;
use crate::peers::{LIBRARIES, REFERENCE};

/// A run, or several of them on one machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The GPU, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adapter: Option<String>,
    /// The instruction set that seqrs uses.
    pub(crate) level: String,
    /// How many the machine has.
    pub(crate) processors: usize,
    /// Versions of the libraries.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
}

/// One library at one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) threads: usize,
    pub(crate) library: String,
    /// Median over the turns.
    pub(crate) seconds: f64,
    /// The fastest and the slowest turn.
    pub(crate) spread: (f64, f64),
    /// Largest difference from the reference, of the largest value in the array.
    pub(crate) difference: f64,
    /// How many times the time of each form of seqrs it needs: the median of the ratios of
    /// single rounds.
    pub(crate) times: BTreeMap<String, f64>,
}

impl Record {
    fn row(&self, case: &str, threads: usize, library: &str) -> Option<&Row> {
        let is = |row: &&Row| row.case == case && row.threads == threads && row.library == library;
        self.rows.iter().find(is)
    }

    fn threads(&self) -> Vec<usize> {
        let mut threads: Vec<_> = self.rows.iter().map(|row| row.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// Tables in Markdown: against each form of seqrs.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for reference in LIBRARIES.iter().filter(|library| library.goal.is_none()) {
            let peers: Vec<_> = LIBRARIES
                .iter()
                .filter(|library| library.goal.is_some() && library.reference == reference.name)
                .map(|library| library.name)
                .collect();
            let ours = with_single(reference.name, reference.device);
            let mut columns = vec!["case", "threads"];
            columns.extend(&ours);
            for peer in &peers {
                columns.push(peer);
                columns.extend(ours.iter().map(|_| "times"));
            }
            let mut rows = Vec::new();
            for threads in self.threads() {
                for case in Case::all(reference.device) {
                    rows.extend(self.line(&case.name(), threads, &ours, &peers));
                }
            }
            if !rows.is_empty() {
                let rule = vec!["---"; columns.len()].join("|");
                let _ =
                    writeln!(text, "| {} |\n|{rule}|\n{}\n", columns.join(" | "), rows.join("\n"));
            }
        }
        text
    }

    /// A line of a table, if the case was timed.
    fn line(&self, case: &str, threads: usize, ours: &[&str], peers: &[&str]) -> Option<String> {
        self.row(case, threads, ours[0])?;
        let mut cells = vec![case.to_string(), threads.to_string()];
        let time = |library| self.row(case, threads, library).map(|row| duration(row.seconds));
        cells.extend(ours.iter().map(|name| time(name).unwrap_or_default()));
        for peer in peers {
            let row = self.row(case, threads, peer);
            cells.push(time(peer).unwrap_or_default());
            let times = |name: &&str| row.and_then(|row| row.times.get(*name));
            cells.extend(ours.iter().map(|name| times(name).map_or(String::new(), ratio)));
        }
        Some(format!("| {} |", cells.join(" | ")))
    }

    /// The goals, and whether they are met: in the library's own precision and, where that is
    /// f64, against f32 as well.
    pub(crate) fn goals(&self) -> String {
        let mut text = String::new();
        for library in LIBRARIES {
            let Some(goal) = library.goal else { continue };
            for reference in with_single(library.reference, library.device) {
                text += &self.goal(library, reference, goal);
            }
        }
        text
    }

    fn goal(&self, library: &Library, reference: &str, goal: fn(usize) -> f64) -> String {
        let (library, device) = (library.name, library.device);
        let mut missed = String::new();
        let (mut timed, mut least) = (0, f64::INFINITY);
        for threads in self.threads() {
            for case in Case::all(device) {
                let name = case.name();
                let row = self.row(&name, threads, library);
                let Some(&times) = row.and_then(|row| row.times.get(reference)) else { continue };
                timed += 1;
                least = least.min(times);
                let wanted = goal(case.size);
                if times < wanted {
                    let (times, wanted) = (ratio(&times), ratio(&wanted));
                    let _ = writeln!(missed, "  {name} ({threads}): {times}, goal {wanted}");
                }
            }
        }
        if timed == 0 {
            return String::new();
        }
        let (small, large, least) = (ratio(&goal(64)), ratio(&goal(512)), ratio(&least));
        let goal = match small == large {
            true => small,
            false => format!("{small} up to H = 128 and {large} above"),
        };
        let word = match missed.lines().count() {
            0 => format!("met in all {timed} cases"),
            n => format!("not met in {n} of {timed} cases (threads)"),
        };
        format!("{library} / {reference} >= {goal}: {word}, least {least}\n{missed}")
    }
}

/// A form of seqrs and, beside f64, f32 as well: it is what one would use.
fn with_single(reference: &'static str, device: Device) -> Vec<&'static str> {
    let single = (device == Device::Cpu && reference != REFERENCE).then_some(REFERENCE);
    [reference].into_iter().chain(single).collect()
}

/// As short as it may be.
fn ratio(times: &f64) -> String {
    let digits = if *times < 9.95 { 2 } else { 0 };
    format!("{times:.digits$}")
}

fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 9.995e-3 => (s * 1e6, "us"),
        s => (s * 1e3, "ms"),
    };
    let digits = if value < 99.95 { 1 } else { 0 };
    format!("{value:.digits$} {unit}")
}
